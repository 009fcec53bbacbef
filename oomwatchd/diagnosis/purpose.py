"""The purpose of a request for kernel memory, by the functions of the call trace.

If the kernel's own memory fills a cgroup, the request that fails at the limit is most likely for more of the
same: with 60 MiB of pipe buffers, it is probably a pipe's request. That is one sample, not a count, and the
text says so ("asked for last"). The functions are those between the system call and the allocator that are
called for one purpose only. The names cover all kernels since 2.6.32.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec


class Purpose(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of kernel data."""

    #: A regular expression, compiled on first use: most hosts never have a report.
    functions: str
    #: What one request is for: "a pipe".
    words: str
    #: What holds the memory: "pipe buffers".
    holds: str
    #: Where to see it, and what limits it.
    look: str
    #: No counter of the machine includes it.
    uncounted: bool = False


def _of(functions: str, words: str, holds: str, look: str, *, uncounted: bool = False) -> Purpose:
    return Purpose(functions=functions, words=words, holds=holds, look=look, uncounted=uncounted)


_FDS = "ls -l /proc/PID/fd shows who has many; end it or bound it (ulimit -n"

#: The more specific purposes come first: a pipe also has an inode, and nftables requests arrive by netlink.
PURPOSES: tuple[Purpose, ...] = (
    _of(
        r"(?:anon_)?pipe_write|create_pipe_files|alloc_pipe_info|do_pipe2|__do_pipe_flags|do_pipe_flags|"
        r"pipe_set_size|pipe_resize_ring|pipe_fcntl|fifo_open",
        "a pipe",
        "pipe buffers",
        f"{_FDS}; fs.pipe-user-pages-soft)",
        uncounted=True,
    ),
    _of(
        r"copy_net_ns|setup_net|net_alloc|ops_init",
        "a network namespace",
        "network namespaces",
        "lsns -t net lists them; ls -l /proc/PID/ns and mounts of nsfs keep them; user.max_net_namespaces "
        "bounds them",
    ),
    _of(
        r"copy_mnt_ns|create_new_namespaces|copy_utsname|copy_ipcs|copy_user_ns|create_user_ns|copy_tree|"
        r"alloc_vfsmnt|clone_mnt|attach_recursive_mnt",
        "a namespace or a mount",
        "namespaces and mounts",
        "lsns and /proc/PID/mountinfo show them; fs.mount-max and user.max_*_namespaces bound them",
    ),
    _of(
        r"nft_\w+|nf_tables_\w+|nfnetlink_rcv\w*|xt_\w+|ipt_\w+|do_replace|do_ipt_set_ctl|ip_set_\w+",
        "firewall rules (nftables, ipset)",
        "firewall rules and sets (nftables, ipset)",
        "nft list ruleset (in its network namespace) shows which set or table grows; flush it, or bound the "
        "set (size)",
    ),
    _of(
        r"(?:__)?nf_conntrack_\w+|init_conntrack|nf_ct_\w+",
        "a tracked connection",
        "tracked connections (conntrack)",
        "conntrack -C counts them; net.netfilter.nf_conntrack_max bounds them",
    ),
    _of(
        r"fib_table_insert|fib_insert_alias|fib_create_info|inet_rtm_newroute|inet6_rtm_newroute|"
        r"ip6_route_add|fib6_add\w*",
        "a route",
        "routes",
        "ip route show table all (in its network namespace) shows them",
    ),
    _of(
        r"register_netdevice|rtnl_newlink\w*|alloc_netdev\w*|veth_newlink|neigh_create|___neigh_create|"
        r"neigh_alloc",
        "a network device or neighbour",
        "network devices and neighbours",
        "ip -s link and ip neigh show them; net.ipv4.neigh.default.gc_thresh3 bounds neighbours",
    ),
    _of(
        r"unix_\w+",
        "a unix socket",
        "unix sockets and what is queued in them",
        f"ss -xmp shows what is queued; have the reader read it, {_FDS}; net.core.wmem_max bounds one)",
        uncounted=True,
    ),
    _of(
        r"netlink_\w+|packet_\w+|tpacket_\w+",
        "a netlink or packet socket",
        "netlink or packet sockets",
        f"ss -A netlink,packet -mp shows them; {_FDS})",
        uncounted=True,
    ),
    _of(
        r"tcp_\w+|udp\w*_\w+|inet6?_\w+|ip6?_append_data|__ip6?_append_data|ip6?_make_skb|sctp_\w+",
        "a network socket",
        "network sockets and what is queued in them",
        "ss -tump shows whose queues are full; have them read, use fewer connections, or bound them "
        "(SO_RCVBUF, net.ipv4.tcp_rmem)",
        uncounted=True,
    ),
    _of(
        r"svc_\w+|nfsd\d?_\w+|nfsd",
        "the NFS server's buffers",
        "buffers of the NFS server",
        "fewer threads (/proc/fs/nfsd/threads) hold fewer; what grows for days is a leak: update the kernel",
        uncounted=True,
    ),
    _of(
        r"sk_alloc|sk_prot_alloc|sock_alloc\w*|__sock_create|__sys_socket(?:pair)?|__?alloc_skb\w*|"
        r"alloc_skb_with_frags|__netdev_alloc_skb|napi_alloc_skb|sock_alloc_send_pskb|skb_page_frag_refill",
        "a network buffer",
        "sockets and what is queued in them",
        f"ss -tuxmp shows what is queued; {_FDS})",
        uncounted=True,
    ),
    _of(
        r"bpf_map_\w+|map_create|__sys_bpf|array_map_\w+|htab_\w+|trie_\w+|ringbuf_map_\w+|bpf_ringbuf_\w+|"
        r"bpf_prog_(?:load|alloc\w*|realloc)",
        "a BPF map",
        "BPF maps and programs",
        "bpftool map, or memlock in /proc/PID/fdinfo, shows whose; end it or make its maps smaller",
        uncounted=True,
    ),
    _of(
        r"io_uring_\w+|__io_uring_\w+|io_\w*submit_sqes?|io_allocate_\w+|io_sqe_\w+|io_register_\w+|"
        r"io_buffer\w*|io_provide_buffers\w*",
        "io_uring",
        "io_uring rings and requests",
        f"{_FDS}; smaller rings)",
        uncounted=True,
    ),
    _of(
        r"do_msgsnd|load_msg|alloc_msg|ksys_msgsnd|mqueue_\w+|do_mq_\w+|newque",
        "a message in a queue",
        "message queues (SysV, POSIX)",
        "ipcs -q and /dev/mqueue show them; ipcrm -q removes one, kernel.msgmnb and fs.mqueue bound them",
    ),
    _of(
        r"newary|ksys_semget|__?do_semtimedop|do_semtimedop",
        "semaphores",
        "SysV semaphores",
        "ipcs -s shows them; ipcrm -s removes one, kernel.sem bounds them",
    ),
    _of(
        r"inotify_\w+|fanotify_\w+|fsnotify_\w*(?:mark|event)\w*|do_inotify_init",
        "an inotify or fanotify mark",
        "inotify and fanotify marks and events",
        "inotify: lines of /proc/PID/fdinfo count them; fs.inotify.max_user_watches bounds them",
    ),
    _of(
        r"ep_insert|do_epoll_ctl|do_epoll_create|ep_alloc",
        "an epoll entry",
        "epoll entries",
        f"{_FDS}; fs.epoll.max_user_watches)",
    ),
    _of(
        r"__?sigqueue_alloc|__send_signal\w*|alloc_posix_timer|do_timer_create|common_timer_create",
        "a signal or timer",
        "queued signals and timers",
        "SigQ in /proc/PID/status counts them; ulimit -i bounds them",
    ),
    _of(
        r"key_alloc|key_create\w*|user_preparse|__key_instantiate_and_link|keyring_alloc",
        "a key",
        "keys (keyctl)",
        "/proc/key-users counts them; kernel.keys.maxbytes bounds them",
    ),
    _of(
        r"locks_alloc_lock|flock_lock_inode|posix_lock_inode|fcntl_setlk|do_flock",
        "a file lock",
        "file locks",
        "/proc/locks lists them; ulimit -x bounds them",
    ),
    _of(
        r"simple_xattr_\w+|\w+_xattr_set|__vfs_setxattr\w*|posix_acl_\w+",
        "an extended attribute",
        "extended attributes of files",
        "getfattr -d shows them; fewer or smaller ones",
    ),
    _of(
        r"kvm_\w+|tdp_\w+|vmx_\w+|svm_\w+",
        "a virtual machine",
        "data of virtual machines (KVM)",
        "fewer or smaller virtual machines hold less; huge pages for the guest make its tables small",
    ),
    _of(
        r"perf_\w+|rb_alloc\w*|ring_buffer_\w+",
        "a perf buffer",
        "perf and trace buffers",
        "end the tracer, or give it smaller buffers (kernel.perf_event_mlock_kb)",
        uncounted=True,
    ),
    _of(
        r"cgroup_mkdir|css_create|mem_cgroup_css_alloc|cgroup_apply_control_enable|cgroup_create",
        "a cgroup",
        "cgroups below it",
        "nr_descendants and nr_dying_descendants in cgroup.stat count them; remove what is empty, "
        "cgroup.max.descendants bounds them",
    ),
    _of(
        r"copy_process|dup_task_struct|alloc_thread_stack_node|memcg_charge_kernel_stack\w*|kernel_clone|"
        r"_?do_fork|copy_signal|copy_sighand|alloc_pid",
        "a new task",
        "threads and processes (kernel stacks)",
        "Threads in /proc/PID/status counts them; bound them (pids.max of the cgroup, the program's own "
        "pool)",
    ),
    _of(
        r"__?pte_alloc(?:_one|_kernel)?|pte_alloc_one|__?p[mu4]d_alloc|pgd_alloc|mm_init",
        "page tables",
        "page tables",
        "VmPTE in /proc/PID/status shows whose; fewer processes, smaller mappings or huge pages make them "
        "smaller",
    ),
    _of(
        r"mmap_region|__mmap_region|split_vma|__split_vma|vm_area_dup|vm_area_alloc|mprotect_fixup|"
        r"do_brk_flags|anon_vma_\w+|__anon_vma_prepare|mas_\w+",
        "a memory mapping",
        "memory mappings",
        "wc -l /proc/PID/maps counts them; vm.max_map_count bounds them, larger mappings make fewer",
    ),
    _of(
        r"\w+_mknod|\w+_mkdir|\w+_symlink|(?:__)?shmem_get_inode|(?:__)?shmem_file_setup|"
        r"(?:vfs|shmem|ramfs|ext[234]|xfs_vn|btrfs|f2fs|ovl|fuse|nfs\d?)_create",
        "a new file's inode or name",
        "inodes and names of files",
        "df -i shows a tmpfs with many files, slabtop -s c the caches; remove files, or bound a tmpfs "
        "(nr_inodes=)",
    ),
    # opening a file allocates all three; the trace does not tell which of them stays
    _of(
        r"alloc_inode|new_inode\w*|\w+_alloc_inode|__?d_alloc\w*|d_alloc\w*|alloc_(?:empty_)?file\w*|"
        r"__alloc_file|get_empty_filp|dup_fd|alloc_fdtable|expand_files|expand_fdtable|single_open\w*|"
        r"seq_open\w*",
        "an open file, its inode or name",
        "open files, their inodes and names",
        f"{_FDS}; LimitNOFILE=); df -i shows a tmpfs with many files",
    ),
    _of(
        r"drm_\w+|ttm_\w+|i915_\w+|amdgpu_\w+|dma_heap_\w+|ion_\w+",
        "a graphics buffer",
        "graphics buffers",
        "drm-total-* in /proc/PID/fdinfo and /sys/kernel/debug/dri show whose",
        uncounted=True,
    ),
)
#: Functions that charge the kernel's own data (mm/memcontrol.c), not a page of a process or a file.
_KERNEL_CHARGE = (
    r"obj_cgroup_charge\w*|__memcg_kmem_\w+|memcg_kmem_\w+|memcg_charge_kernel_stack\w*|memcg_charge_slab|"
    r"__memcg_slab_\w+|memcg_slab_\w+|__memcg_charge_slab"
)


def purpose(trace: Sequence[str]) -> Purpose | None:
    """What a trace's request was for; None if none of its functions has a single purpose."""
    first = min((_place(function.partition(".")[0]) for function in trace), default=len(PURPOSES))
    return PURPOSES[first] if first < len(PURPOSES) else None


@lru_cache(maxsize=512)
def _place(function: str) -> int:
    """The index of the first purpose that has this function; the number of purposes if none has it."""
    known = (place for place, p in enumerate(PURPOSES) if re.fullmatch(p.functions, function))
    return next(known, len(PURPOSES))


def for_the_kernel(trace: Sequence[str]) -> bool:
    """Whether the request was charged as the kernel's own memory."""
    return any(re.fullmatch(_KERNEL_CHARGE, function.partition(".")[0]) for function in trace)
