/* Ways to run out of memory, each of one known cause: causes NAME ARGUMENT...
 *
 * What is finite ends with 0 after it has held its memory for SECONDS; 3: it was refused. NAME, where there is
 * one, is what the process is called.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/dma-heap.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/rtnetlink.h>
#include <linux/userfaultfd.h>
#include <net/ethernet.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, HUGE = 2 * MIB };
static char **word;
static int words;
static char block[MIB];

static const char *text(int at) { return at < words ? word[at] : ""; }
static long number(int at) { return at < words ? atol(word[at]) : 0; }
static void called(int at) { if (at < words) prctl(PR_SET_NAME, word[at]); }
static void hold(long seconds) { while (seconds > 0) seconds = sleep(seconds); }
static void must(int good, const char *what) { if (!good) { perror(what); exit(3); } }

static void unlimited(int which, rlim_t most)
{
	struct rlimit limit = {most, most};
	setrlimit(which, &limit);
}

static char *room(long bytes, int flags)
{
	char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	must(at != MAP_FAILED, "mmap");
	return at;
}

static void fill(long mib) { while (mib-- > 0) memset(room(MIB, 0), 'x', MIB); }

/* ---- anonymous memory */
static void anon(void) { called(2); fill(number(0)); hold(number(1)); }
static void leak(void) { called(1); for (;;) { fill(1); if (number(0)) usleep(1000000 / number(0)); } }

static void noise(void) /* does not compress */
{
	uint64_t state = 0x9e3779b97f4a7c15u;
	called(2);
	for (long mib = number(0); mib > 0; mib--) {
		uint64_t *at = (void *)room(MIB, 0);
		for (int i = 0; i < MIB / 8; i++) { state ^= state >> 12; state ^= state << 25; state ^= state >> 27; at[i] = state; }
	}
	hold(number(1));
}

static void crowd(void) /* COUNT MB SECONDS NAME: 1 where a child was lost */
{
	long lost = 0;
	for (long i = 0; i < number(0); i++)
		if (!fork()) { called(3); fill(number(1)); hold(number(2) + 5); _exit(0); }
	hold(number(2));
	while (waitpid(-1, NULL, WNOHANG) > 0) lost++;
	exit(lost > 0);
}

static void lock(void)
{
	called(2); unlimited(RLIMIT_MEMLOCK, RLIM_INFINITY);
	must(!mlock(room(number(0) * MIB, 0), number(0) * MIB), "mlock");
	hold(number(1));
}

static void dots(void) /* a byte in each huge page's place */
{
	called(2);
	char *at = room(number(0) * MIB + HUGE, MAP_NORESERVE);
	at += HUGE - (uintptr_t)at % HUGE;
	for (long done = 0; done < number(0) * MIB; done += HUGE) at[done] = 1;
	hold(number(1));
}

static void tables(void) /* GIB SECONDS: page tables over the zero page */
{
	called(2);
	for (long gib = number(0); gib > 0; gib--) {
		volatile char *at = room(1L << 30, MAP_NORESERVE);
		madvise((void *)at, 1L << 30, MADV_NOHUGEPAGE);
		for (long done = 0; done < 1L << 30; done += HUGE) (void)at[done];
	}
	hold(number(1));
}

static void steps(void) /* MB SECONDS NAME: a heap that doubles and copies, as a virtual machine's */
{
	called(2);
	char *old = NULL; long size = 1;
	while (size < number(0)) {
		long next = size * 2 < number(0) ? size * 2 : number(0);
		char *new = room(next * MIB, 0);
		memset(new, 1, next * MIB);
		if (old) munmap(old, size * MIB);
		old = new; size = next;
		usleep(100000);
	}
	hold(number(1));
}

static void sawtooth(void) /* LIVE SECONDS NAME: a collector that runs when the heap is twice what lives */
{
	called(2);
	long live = number(0);
	char *heap = room(2 * live * MIB, 0);
	for (int round = 0; round < 4; round++) {
		memset(heap, round, 2 * live * MIB);
		madvise(heap + live * MIB, live * MIB, MADV_DONTNEED);
	}
	hold(number(1));
}

static void arenas(void) /* MB SECONDS NAME: small objects, one of 64 lives on and keeps its page */
{
	called(2);
	long pages = number(0) * 256;
	for (long i = 0; i < pages; i++) {
		char *kept = NULL;
		for (int j = 0; j < 16; j++) { char *object = malloc(240); memset(object, 1, 240); if (!j) kept = object; else free(object); }
		(void)kept;
		memset(malloc(4000), 1, 4000);
	}
	hold(number(1));
}

static void forked(void) /* MB CHILDREN SECONDS NAME: shared after fork(), until each writes */
{
	called(3);
	char *at = room(number(0) * MIB, 0);
	memset(at, 1, number(0) * MIB);
	for (long i = 0; i < number(1); i++)
		if (!fork()) { sleep(1); for (long done = 0; done < number(0) * MIB; done += 4096) at[done] = 2; hold(number(2)); _exit(0); }
	int status, lost = 0;
	while (wait(&status) > 0) lost += status != 0;
	exit(lost > 0);
}

static void fault(void) /* MB SECONDS: filled by a userfaultfd */
{
	called(2);
	long bytes = number(0) * MIB;
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	must(fd >= 0, "userfaultfd");
	struct uffdio_api api = {.api = UFFD_API};
	must(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
	char *at = room(bytes, 0);
	struct uffdio_register area = {.range = {(uintptr_t)at, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	must(!ioctl(fd, UFFDIO_REGISTER, &area), "UFFDIO_REGISTER");
	for (long done = 0; done < bytes; done += MIB) {
		struct uffdio_copy copy = {.dst = (uintptr_t)at + done, .src = (uintptr_t)block, .len = MIB};
		must(!ioctl(fd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
	}
	hold(number(1));
}

static void bind_node(void) /* NODE MB SECONDS */
{
	unsigned long nodes = 1ul << number(0);
	called(3);
	must(!syscall(SYS_set_mempolicy, 2, &nodes, 64), "set_mempolicy");
	fill(number(1)); hold(number(2));
}

/* ---- shared memory and files */
static void sysv(void) /* the segment is left behind */
{
	called(2);
	int id = shmget(IPC_PRIVATE, number(0) * MIB, IPC_CREAT | 0600);
	must(id >= 0, "shmget");
	memset(shmat(id, NULL, 0), 1, number(0) * MIB);
	hold(number(1));
}

static void sysv_remove(void)
{
	char line[512]; int id;
	FILE *list = fopen("/proc/sysvipc/shm", "r");
	while (list && fgets(line, sizeof line, list))
		if (sscanf(line, "%*d %d", &id) == 1) shmctl(id, IPC_RMID, NULL);
}

static void memfd(void)
{
	called(2);
	int fd = memfd_create("cache", 0);
	for (long i = 0; i < number(0); i++) must(write(fd, block, MIB) == MIB, "write");
	hold(number(1));
}

static void passed(void) /* MB SECONDS PROCS NAME: a sealed memfd, made and filled by a child in the cgroup of PROCS */
{
	union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control = {0};
	char one = 0; int ends[2];
	struct iovec byte = {&one, 1};
	struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	called(3);
	must(!socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), "socketpair");
	if (!fork()) {
		int procs = open(text(2), O_WRONLY), fd = memfd_create("frames", MFD_ALLOW_SEALING);
		must(procs >= 0 && write(procs, "0", 1) == 1, text(2));
		for (long i = 0; i < number(0); i++) must(write(fd, block, MIB) == MIB, "write");
		must(!fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), "F_ADD_SEALS");
		control.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
		memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
		must(sendmsg(ends[1], &message, 0) == 1, "sendmsg");
		_exit(0);
	}
	must(recvmsg(ends[0], &message, 0) == 1, "recvmsg");
	wait(NULL); hold(number(1));
}

static void secret(void) /* MB SECONDS NAME: memfd_secret, which nobody else can read */
{
	called(2); unlimited(RLIMIT_MEMLOCK, RLIM_INFINITY);
	int fd = syscall(447 /* memfd_secret */, 0);
	must(fd >= 0 && !ftruncate(fd, number(0) * MIB), "memfd_secret");
	char *at = mmap(NULL, number(0) * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(at != MAP_FAILED, "mmap");
	memset(at, 1, number(0) * MIB); hold(number(1));
}

static void map_write(void) /* FILE MB SECONDS NAME: a file written by its mapping */
{
	called(3);
	int fd = open(text(0), O_CREAT | O_RDWR, 0600);
	must(fd >= 0 && !ftruncate(fd, number(1) * MIB), text(0));
	char *at = mmap(NULL, number(1) * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(at != MAP_FAILED, "mmap");
	memset(at, 1, number(1) * MIB); hold(number(2));
}

static void unlinked(void) /* FILE MB SECONDS NAME: deleted, and held open */
{
	called(3);
	int fd = open(text(0), O_CREAT | O_RDWR, 0600);
	must(fd >= 0 && !unlink(text(0)), text(0));
	for (long i = 0; i < number(1); i++) must(write(fd, block, MIB) == MIB, "write");
	hold(number(2));
}

static void shared(void) /* MB SECONDS NAME: MAP_SHARED without a file */
{
	called(2);
	char *at = mmap(NULL, number(0) * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(at != MAP_FAILED, "mmap");
	memset(at, 1, number(0) * MIB); hold(number(1));
}

static void huge(void)
{
	called(2);
	char *at = room(number(0) * MIB, MAP_HUGETLB);
	for (long done = 0; done < number(0) * MIB; done += HUGE) at[done] = 1;
	hold(number(1));
}

static void write_file(void) /* FILE MB NAME */
{
	called(2);
	int fd = open(text(0), O_CREAT | O_WRONLY, 0600);
	must(fd >= 0, text(0));
	for (long i = 0; i < number(1); i++) must(write(fd, block, MIB) == MIB, "write");
}

static void lock_file(void) /* FILE SECONDS NAME: page cache that is locked */
{
	struct stat file;
	called(2); unlimited(RLIMIT_MEMLOCK, RLIM_INFINITY);
	int fd = open(text(0), O_RDONLY);
	must(fd >= 0 && !fstat(fd, &file), text(0));
	char *at = mmap(NULL, file.st_size, PROT_READ, MAP_SHARED, fd, 0);
	must(at != MAP_FAILED && !mlock(at, file.st_size), "mlock");
	hold(number(1));
}

static void empty_files(void) /* COUNT DIRECTORY SECONDS NAME */
{
	char path[512];
	called(3);
	for (long i = 0; i < number(0); i++) {
		snprintf(path, sizeof path, "%s/%0180ld", text(1), i);
		int fd = open(path, O_CREAT | O_WRONLY, 0600);
		must(fd >= 0, "open"); close(fd);
	}
	hold(number(2));
}

/* ---- the kernel's own memory */
static void *wait_here(void *nothing) { pause(); return nothing; }

static void threads(void)
{
	pthread_attr_t small; pthread_t one;
	called(2); pthread_attr_init(&small); pthread_attr_setstacksize(&small, 16384);
	for (long i = 0; i < number(0); i++) { errno = pthread_create(&one, &small, wait_here, NULL); must(!errno, "pthread_create"); }
	hold(number(1)); _exit(0);
}

static void bomb(void) { called(0); for (;;) { if (!fork()) fill(1); usleep(1500); } }

static void opens(void)
{
	called(2); unlimited(RLIMIT_NOFILE, 1 << 20);
	for (long i = 0; i < number(0); i++) must(open("/proc/self/stat", O_RDONLY) >= 0, "open");
	hold(number(1));
}

static void pipes(void)
{
	int ends[2];
	called(2); unlimited(RLIMIT_NOFILE, 1 << 20);
	for (long i = 0; i < number(0); i++) {
		must(!pipe2(ends, O_NONBLOCK), "pipe2");
		must(write(ends[1], block, 65536) > 0, "write");
	}
	hold(number(1));
}

static void unix_sockets(void)
{
	int ends[2], most = 1 << 20;
	called(2); unlimited(RLIMIT_NOFILE, 1 << 20);
	for (long i = 0; i < number(0); i++) {
		must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), "socketpair");
		setsockopt(ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &most, sizeof most);
		while (write(ends[0], block, 65536) > 0) ;
	}
	hold(number(1));
}

static void udp(void) /* COUNT SECONDS NAME: datagrams that nobody reads */
{
	int most = 4 * MIB;
	called(2); unlimited(RLIMIT_NOFILE, 1 << 20);
	for (long i = 0; i < number(0); i++) {
		struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
		socklen_t size = sizeof own;
		int in = socket(AF_INET, SOCK_DGRAM, 0), out = socket(AF_INET, SOCK_DGRAM, 0);
		must(in >= 0 && out >= 0 && !bind(in, (void *)&own, size), "bind");
		getsockname(in, (void *)&own, &size);
		setsockopt(in, SOL_SOCKET, SO_RCVBUFFORCE, &most, sizeof most);
		for (int j = 0; j < 120; j++) sendto(out, block, 60000, MSG_DONTWAIT, (void *)&own, size);
		close(out);
	}
	hold(number(1));
}

static void packet_rings(void)
{
	called(2);
	for (long mib = number(0); mib > 0; mib -= 16) {
		struct tpacket_req ring = {.tp_block_size = 65536, .tp_block_nr = 256, .tp_frame_size = 2048, .tp_frame_nr = 8192};
		int fd = socket(AF_PACKET, SOCK_RAW, 0);
		must(fd >= 0 && !setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring), "PACKET_RX_RING");
	}
	hold(number(1));
}

static void bpf_maps(void)
{
	called(2); unlimited(RLIMIT_MEMLOCK, RLIM_INFINITY);
	for (long mib = number(0); mib > 0; mib -= 4) {
		union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4096, .max_entries = 1024};
		must(syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map) >= 0, "bpf");
	}
	hold(number(1));
}

static void urings(void) /* COUNT SECONDS NAME: rings of 32768 entries */
{
	called(2); unlimited(RLIMIT_MEMLOCK, RLIM_INFINITY); unlimited(RLIMIT_NOFILE, 1 << 20);
	for (long i = 0; i < number(0); i++) {
		struct io_uring_params ring = {0};
		must(syscall(SYS_io_uring_setup, 32768, &ring) >= 0, "io_uring_setup");
	}
	hold(number(1));
}

static void registered(void) /* MB SECONDS NAME: buffers that an io_uring keeps pinned */
{
	called(2); unlimited(RLIMIT_MEMLOCK, RLIM_INFINITY);
	struct io_uring_params ring = {0};
	int fd = syscall(SYS_io_uring_setup, 8, &ring);
	must(fd >= 0, "io_uring_setup");
	struct iovec buffer = {room(number(0) * MIB, 0), number(0) * MIB};
	must(!syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, &buffer, 1), "IORING_REGISTER_BUFFERS");
	hold(number(1));
}

static void timers(void) /* COUNT SECONDS NAME: POSIX timers that never fire */
{
	called(2); unlimited(RLIMIT_SIGPENDING, RLIM_INFINITY);
	struct sigevent none = {.sigev_notify = SIGEV_NONE};
	timer_t timer;
	for (long i = 0; i < number(0); i++) must(!timer_create(CLOCK_MONOTONIC, &none, &timer), "timer_create");
	hold(number(1));
}

static void mounts(void) /* COUNT DIRECTORY SECONDS NAME: mount namespaces with 100 mounts more, each kept by a descriptor */
{
	called(3); unlimited(RLIMIT_NOFILE, 1 << 20);
	for (long i = 0; i < 100; i++) must(!mount("/proc", text(1), NULL, MS_BIND, NULL), "mount");
	for (long i = 0; i < number(0); i++) {
		must(!unshare(CLONE_NEWNS), "unshare");
		must(open("/proc/self/ns/mnt", O_RDONLY) >= 0, "ns/mnt");
	}
	hold(number(2)); _exit(0);
}

static void tcp(void) /* COUNT SECONDS NAME: connections to itself that nobody reads */
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t size = sizeof own;
	int most = 4 * MIB;
	called(2); unlimited(RLIMIT_NOFILE, 1 << 20);
	int door = socket(AF_INET, SOCK_STREAM, 0);
	must(door >= 0 && !bind(door, (void *)&own, size) && !listen(door, 1000), "listen");
	getsockname(door, (void *)&own, &size);
	for (long i = 0; i < number(0); i++) {
		int out = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(out, SOL_SOCKET, SO_SNDBUFFORCE, &most, sizeof most);
		must(!connect(out, (void *)&own, size), "connect");
		int in = accept(door, NULL, NULL);
		setsockopt(in, SOL_SOCKET, SO_RCVBUFFORCE, &most, sizeof most);
		fcntl(out, F_SETFL, O_NONBLOCK);
		for (int j = 0; j < 64 && write(out, block, 65536) > 0; j++) ;
	}
	hold(number(1));
}

static void dmabufs(void) /* MB SECONDS NAME: of the system heap, 4 MiB each, not mapped */
{
	called(2);
	int heap = open("/dev/dma_heap/system", O_RDWR);
	must(heap >= 0, "/dev/dma_heap/system");
	for (long mib = number(0); mib > 0; mib -= 4) {
		struct dma_heap_allocation_data buffer = {.len = 4 * MIB, .fd_flags = O_RDWR | O_CLOEXEC};
		must(!ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &buffer), "DMA_HEAP_IOCTL_ALLOC");
	}
	hold(number(1));
}

static void perf_buffers(void) /* MB SECONDS NAME: rings of 8 MiB of events that never come */
{
	called(2); unlimited(RLIMIT_MEMLOCK, RLIM_INFINITY);
	for (long mib = number(0); mib > 0; mib -= 8) {
		struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event, .config = PERF_COUNT_SW_DUMMY};
		int fd = syscall(SYS_perf_event_open, &event, 0, -1, -1, 0);
		must(fd >= 0, "perf_event_open");
		must(mmap(NULL, 8 * MIB + 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED, "perf mmap");
	}
	hold(number(1));
}

static void watches(void) /* COUNT DIRECTORY SECONDS NAME: inotify on files of its own */
{
	char path[512];
	called(3); unlimited(RLIMIT_NOFILE, 1 << 20);
	int fd = inotify_init();
	for (long i = 0; i < number(0); i++) {
		snprintf(path, sizeof path, "%s/%ld", text(1), i);
		close(open(path, O_CREAT | O_WRONLY, 0600));
		must(inotify_add_watch(fd, path, IN_MODIFY) >= 0, "inotify_add_watch");
	}
	hold(number(2));
}

static void routes(void) /* COUNT SECONDS NAME: a routing table that grows */
{
	struct { struct nlmsghdr head; struct rtmsg route; struct rtattr to; uint32_t address; struct rtattr by; uint32_t device; } new;
	called(2);
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	must(fd >= 0, "netlink");
	for (long i = 0; i < number(0); i++) {
		memset(&new, 0, sizeof new);
		new.head = (struct nlmsghdr){.nlmsg_len = sizeof new, .nlmsg_type = RTM_NEWROUTE, .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE};
		new.route = (struct rtmsg){.rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC, .rtm_scope = RT_SCOPE_LINK, .rtm_type = RTN_UNICAST};
		new.to = (struct rtattr){.rta_len = 8, .rta_type = RTA_DST};
		new.address = htonl(0x0b000000 + i * 3);
		new.by = (struct rtattr){.rta_len = 8, .rta_type = RTA_OIF};
		new.device = 1;
		must(send(fd, &new, sizeof new, 0) > 0, "RTM_NEWROUTE");
	}
	hold(number(1));
}

static void flows(void) /* COUNT SECONDS NAME: tracked connections of one datagram each */
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {INADDR_ANY}};
	called(2);
	int out = socket(AF_INET, SOCK_DGRAM, 0), deaf = socket(AF_INET, SOCK_DGRAM, 0);
	must(out >= 0 && deaf >= 0 && !bind(deaf, (void *)&to, sizeof to), "bind");
	for (long i = 0; i < number(0); i++) {
		to.sin_addr.s_addr = htonl(0x7f000001 + i);
		sendto(out, block, 1, 0, (void *)&to, sizeof to);
	}
	hold(number(1));
}

/* a batch of nf_tables, built piece by piece */
static struct { char bytes[60000]; size_t size; } batch;

static void *piece(const void *from, size_t size)
{
	char *at = batch.bytes + batch.size;
	memset(at, 0, NLMSG_ALIGN(size));
	if (from) memcpy(at, from, size);
	batch.size += NLMSG_ALIGN(size);
	return at;
}

static struct nlmsghdr *message(int type, int flags)
{
	int control = type == NFNL_MSG_BATCH_BEGIN || type == NFNL_MSG_BATCH_END;
	struct nlmsghdr head = {.nlmsg_type = control ? type : NFNL_SUBSYS_NFTABLES << 8 | type, .nlmsg_flags = NLM_F_REQUEST | flags};
	struct nfgenmsg family = {.nfgen_family = control ? 0 : 2, .res_id = control ? htons(NFNL_SUBSYS_NFTABLES) : 0};
	struct nlmsghdr *at = piece(&head, sizeof head);
	piece(&family, sizeof family);
	return at;
}

static void ends(struct nlmsghdr *at) { at->nlmsg_len = batch.bytes + batch.size - (char *)at; }

static struct nlattr *attribute(int type, const void *from, size_t size)
{
	struct nlattr *at = piece(NULL, sizeof *at);
	at->nla_type = type;
	if (from) piece(from, size);
	at->nla_len = sizeof *at + size;
	return at;
}

static void closes(struct nlattr *at) { at->nla_len = batch.bytes + batch.size - (char *)at; }

static void elements(void) /* COUNT SECONDS NAME: a set of addresses in an nftables table */
{
	uint32_t none = 0, four = htonl(4), one = htonl(1);
	called(2);
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
	must(fd >= 0, "nfnetlink");
	for (long done = -1; done < number(0); ) {
		batch.size = 0;
		ends(message(NFNL_MSG_BATCH_BEGIN, 0));
		struct nlmsghdr *at = message(done < 0 ? NFT_MSG_NEWTABLE : NFT_MSG_NEWSETELEM, NLM_F_CREATE);
		attribute(NFTA_TABLE_NAME, "lists", 6); /* NFTA_SET_ELEM_LIST_TABLE, too */
		if (done < 0) {
			ends(at);
			at = message(NFT_MSG_NEWSET, NLM_F_CREATE);
			attribute(NFTA_SET_TABLE, "lists", 6); attribute(NFTA_SET_NAME, "banned", 7);
			attribute(NFTA_SET_FLAGS, &none, 4); attribute(NFTA_SET_KEY_TYPE, &none, 4);
			attribute(NFTA_SET_KEY_LEN, &four, 4); attribute(NFTA_SET_ID, &one, 4);
			done = 0;
		} else {
			attribute(NFTA_SET_ELEM_LIST_SET, "banned", 7);
			struct nlattr *all = attribute(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, NULL, 0);
			for (int i = 0; i < 2000 && done < number(0); i++, done++) {
				uint32_t address = htonl(0x0b000000 + done);
				struct nlattr *element = attribute(NFTA_LIST_ELEM | NLA_F_NESTED, NULL, 0);
				struct nlattr *key = attribute(NFTA_SET_ELEM_KEY | NLA_F_NESTED, NULL, 0);
				attribute(NFTA_DATA_VALUE, &address, 4);
				closes(key); closes(element);
			}
			closes(all);
		}
		ends(at);
		ends(message(NFNL_MSG_BATCH_END, 0));
		must(send(fd, batch.bytes, batch.size, 0) > 0, "nf_tables");
	}
	hold(number(1));
}

static void namespaces(void) /* COUNT SECONDS NAME: network namespaces, each kept by a descriptor */
{
	called(2); unlimited(RLIMIT_NOFILE, 1 << 20);
	for (long i = 0; i < number(0); i++) {
		must(!unshare(CLONE_NEWNET), "unshare");
		must(open("/proc/self/ns/net", O_RDONLY) >= 0, "ns/net");
	}
	hold(number(1));
}

static void messages(void) /* MB SECONDS NAME [HERE]: SysV message queues that nobody reads; HERE: they stay */
{
	struct { long type; char text[8000]; } one = {1, {1}};
	called(2); must(words > 3 || !unshare(CLONE_NEWIPC), "unshare");
	for (long i = 0; i < number(0) * 64; i++) { /* 16 KiB each, as by default */
		int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
		must(id >= 0, "msgget");
		while (!msgsnd(id, &one, sizeof one.text, IPC_NOWAIT)) ;
	}
	hold(number(1));
}

static void attributes(void) /* MB DIRECTORY SECONDS NAME: extended attributes of files in a tmpfs */
{
	char path[512];
	called(3);
	for (long i = 0; i < number(0); i++) {
		snprintf(path, sizeof path, "%s/%ld", text(1), i);
		close(open(path, O_CREAT | O_WRONLY, 0600));
		for (int j = 0; j < 16; j++) {
			char name[32];
			snprintf(name, sizeof name, "trusted.%d", j);
			must(!setxattr(path, name, block, 65000, 0), "setxattr");
		}
	}
	hold(number(2));
}

static void polled(void) /* COUNT SECONDS NAME: one event descriptor, polled under many numbers */
{
	called(2); unlimited(RLIMIT_NOFILE, 1 << 20);
	int all = epoll_create1(0), one = eventfd(0, 0);
	must(all >= 0 && one >= 0, "epoll_create1");
	for (long i = 0; i < number(0); i++) {
		struct epoll_event event = {.events = EPOLLIN};
		int same = dup(one);
		must(same >= 0 && !epoll_ctl(all, EPOLL_CTL_ADD, same, &event), "epoll_ctl");
	}
	hold(number(1));
}

static void mappings(void) /* CHILDREN SECONDS NAME: 60000 mappings each, none with a page */
{
	int status, lost = 0;
	called(2);
	for (long i = 0; i < number(0); i++)
		if (!fork()) {
			char *at = mmap(NULL, 120000L * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			must(at != MAP_FAILED, "mmap");
			for (long done = 0; done < 60000; done++) if (mprotect(at + done * 8192, 4096, PROT_READ)) break;
			hold(number(1)); _exit(0);
		}
	while (wait(&status) > 0) lost += status != 0;
	exit(lost > 0);
}

/* ---- what the scenario's machine needs */
static void kmsg(void) /* the raw records; may not die of what it tells */
{
	static char record[16384];
	int adjust = open("/proc/self/oom_score_adj", O_WRONLY), log = open("/dev/kmsg", O_RDONLY);
	if (write(adjust, "-1000", 5) < 0) perror("oom_score_adj");
	mlockall(MCL_CURRENT);
	for (;;) {
		ssize_t size = read(log, record, sizeof record);
		if (size > 0) must(write(1, record, size) == size, "write");
		else must(size < 0 && errno == EPIPE, "kmsg");
	}
}

static void receive(void) /* DEVICE: waits until it begins with something, copies it up to the first zero */
{
	int fd = open(text(0), O_RDONLY | O_DIRECT);
	char *at = room(MIB, 0);
	must(fd >= 0, text(0));
	while (pread(fd, at, MIB, 0) > 0 && !at[0]) usleep(200000);
	must(write(1, at, strlen(at)) > 0, "write");
}

static const struct { const char *name; void (*cause)(void); } table[] = {
	{"anon", anon}, {"leak", leak}, {"noise", noise}, {"crowd", crowd}, {"lock", lock}, {"dots", dots},
	{"tables", tables}, {"steps", steps}, {"sawtooth", sawtooth}, {"arenas", arenas}, {"forked", forked},
	{"fault", fault}, {"bind", bind_node}, {"sysv", sysv}, {"sysv-remove", sysv_remove}, {"memfd", memfd},
	{"unlinked", unlinked}, {"flows", flows}, {"elements", elements},
	{"shared", shared}, {"huge", huge}, {"write", write_file}, {"lock-file", lock_file},
	{"empty-files", empty_files}, {"threads", threads}, {"bomb", bomb}, {"opens", opens}, {"pipes", pipes},
	{"unix", unix_sockets}, {"udp", udp}, {"rings", packet_rings}, {"bpf", bpf_maps}, {"urings", urings},
	{"passed", passed}, {"secret", secret}, {"map-write", map_write}, {"registered", registered}, {"timers", timers},
	{"mounts", mounts}, {"tcp", tcp}, {"dmabufs", dmabufs}, {"perf", perf_buffers},
	{"watches", watches}, {"messages", messages}, {"attributes", attributes}, {"polled", polled},
	{"mappings", mappings}, {"routes", routes}, {"namespaces", namespaces}, {"kmsg", kmsg}, {"receive", receive},
};

int main(int argc, char **argv)
{
	word = argv + 2; words = argc > 2 ? argc - 2 : 0;
	for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
		if (argc > 1 && !strcmp(argv[1], table[i].name)) { table[i].cause(); return 0; }
	fprintf(stderr, "causes: no %s\n", argc > 1 ? argv[1] : "argument");
	return 64;
}
