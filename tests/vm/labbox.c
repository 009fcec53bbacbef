/* labbox: the one static helper inside the lab's machines.
 *
 * labbox kmsg             write the records of /dev/kmsg, raw, up to the newest
 * labbox hog [MB [NAME]]  take memory and touch it, for ever or MB of it and then sleep, under NAME
 * labbox thog N           N threads named thr-K, each a hog
 * labbox mbind NODE       a hog bound to a NUMA node
 * labbox sleepers N       N children that sleep
 * labbox hostile K        a hog under the K-th hostile name
 * labbox churn MB         touch MB of memory over and over
 * labbox thrash FILE S    read all pages of a file through a mapping, over and over for S seconds
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB (1 << 20)

/* What a process may call itself to mislead whoever reads the log. */
static const char *const hostile[] = {
    "a) b: c",     "x\ny",          "\x1b[31mred", "<script>x",  "evil, pid=1,u",
    "Killed process", "\xff\xfe\x80", "tab\there",   "",           " lead trail ",
    "\"q\\b'",     "oom-kill:",     "(sd-pam)",    "name [ 123]", "x=1,task=init",
};

static _Noreturn void hog(long mib)
{
    for (long n = 0; mib <= 0 || n < mib; n++) {
        char *p = malloc(MIB);
        if (!p) {
            usleep(1000);
            continue;
        }
        memset(p, 1, MIB);
    }
    for (;;)
        pause();
}

static _Noreturn void churn(long mib)
{
    volatile char *memory = malloc(mib * MIB);
    for (;;)
        for (long at = 0; memory && at < mib * MIB; at += 4096)
            memory[at]++;
}

static int thrash(const char *path, long seconds)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status)) {
        perror(path);
        return 1;
    }
    volatile const char *pages = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (pages == MAP_FAILED) {
        perror(path);
        return 1;
    }
    alarm(seconds);
    for (;;)
        for (off_t at = 0; at < status.st_size; at += 4096)
            (void)pages[at];
}

static void *thread_hog(void *number)
{
    char name[16];
    snprintf(name, sizeof name, "thr-%ld", (long)number);
    prctl(PR_SET_NAME, name);
    hog(0);
}

static int dump_kmsg(void)
{
    char record[16384];
    int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return 1;
    for (;;) {
        ssize_t n = read(fd, record, sizeof record);
        if (n > 0) {
            if (write(1, record, n) != n)
                return 1;
        } else if (n == 0 || errno != EPIPE) { /* EPIPE: records were overwritten */
            return 0;
        }
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    long n = argc > 2 ? atol(argv[2]) : 0;

    if (!strcmp(what, "kmsg"))
        return dump_kmsg();
    if (!strcmp(what, "hog")) {
        if (argc > 3)
            prctl(PR_SET_NAME, argv[3]);
        hog(n);
    }
    if (!strcmp(what, "thog")) {
        pthread_t thread;
        for (long i = 0; i < n; i++)
            pthread_create(&thread, NULL, thread_hog, (void *)i);
        for (;;)
            pause();
    }
    if (!strcmp(what, "mbind")) {
        unsigned long nodes = 1ul << n;
        if (syscall(SYS_set_mempolicy, 2 /* MPOL_BIND */, &nodes, sizeof nodes * 8)) {
            perror("set_mempolicy");
            return 1;
        }
        hog(0);
    }
    if (!strcmp(what, "sleepers")) {
        for (long i = 0; i < n; i++) {
            if (!fork()) {
                char name[16];
                snprintf(name, sizeof name, "sleeper-%ld", i);
                prctl(PR_SET_NAME, name);
                sleep(600);
                _exit(0);
            }
        }
        return 0;
    }
    if (!strcmp(what, "hostile") && n >= 0 && n < (long)(sizeof hostile / sizeof *hostile)) {
        prctl(PR_SET_NAME, hostile[n]);
        hog(0);
    }
    if (!strcmp(what, "churn"))
        churn(n);
    if (!strcmp(what, "thrash") && argc > 3)
        return thrash(argv[2], atol(argv[3]));
    fprintf(stderr, "labbox: unknown: %s\n", what);
    return 2;
}
