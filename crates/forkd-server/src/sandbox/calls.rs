//! Which system calls are refused, and to which processes.
//!
//! The lists say what is refused, and not what is let through: the master lets a child have what it needs itself, and
//! what a handler of another program needs is not known. A list that lets through breaks with the next version of
//! the C library; what a list of refusals does not know is closed by its end: a call that is newer than this program
//! is answered as by a kernel that does not have it.

use crate::sys::sandbox::Refused;

/// A call, and when it is refused.
pub(super) type Call = (libc::c_long, Refused);

/// What a process may do besides serving its clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    /// Open files.
    pub(super) reads: bool,
    /// Make, change and remove files.
    pub(super) writes: bool,
    /// Make sockets, and connect them.
    pub(super) connects: bool,
    /// Connect a socket again that it has.
    pub(super) reconnects: bool,
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use lists::{of_itself, of_master, of_worker};

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) fn of_master() -> Vec<Call> {
    Vec::new()
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) fn of_worker(_: Needs) -> Vec<Call> {
    Vec::new()
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) fn of_itself(_: u32) -> Vec<Call> {
    Vec::new()
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod lists {
    use libc::c_long;

    use super::{Call, Needs, Refused};

    /// What no process of a server ever does, the master included.
    const NEVER: &[c_long] = &[
        // into other processes
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_process_mrelease,
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_perf_event_open,
        libc::SYS_migrate_pages,
        libc::SYS_move_pages,
        // wide doors of the kernel
        libc::SYS_bpf,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_fanotify_init,
        libc::SYS_fanotify_mark,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_remap_file_pages,
        libc::SYS_vmsplice,
        libc::SYS_memfd_secret,
        libc::SYS_mbind,
        libc::SYS_set_mempolicy,
        libc::SYS_personality,
        // the time of other processes
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setaffinity,
        libc::SYS_ioprio_set,
        // mounts, namespaces, root directories
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_setns,
        libc::SYS_mknodat,
        // the machine
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_acct,
        libc::SYS_quotactl,
        libc::SYS_quotactl_fd,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_adjtimex,
        libc::SYS_clock_adjtime,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_syslog,
        libc::SYS_vhangup,
        libc::SYS_nfsservctl,
        libc::SYS_lookup_dcookie,
        // what processes of System V and POSIX share
        libc::SYS_shmget,
        libc::SYS_shmat,
        libc::SYS_shmctl,
        libc::SYS_semget,
        libc::SYS_semctl,
        libc::SYS_semop,
        libc::SYS_semtimedop,
        libc::SYS_msgget,
        libc::SYS_msgsnd,
        libc::SYS_msgrcv,
        libc::SYS_msgctl,
        libc::SYS_mq_open,
        libc::SYS_mq_unlink,
        libc::SYS_mq_timedsend,
        libc::SYS_mq_timedreceive,
        libc::SYS_mq_notify,
        libc::SYS_mq_getsetattr,
        // another user: that is over when a filter comes
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_setgroups,
    ];

    /// The same, of old times.
    #[cfg(target_arch = "x86_64")]
    const NEVER_OLD: &[c_long] = &[
        libc::SYS_mknod,
        libc::SYS_uselib,
        libc::SYS_ustat,
        libc::SYS_sysfs,
        libc::SYS__sysctl,
        libc::SYS_iopl,
        libc::SYS_ioperm,
        libc::SYS_modify_ldt,
    ];
    #[cfg(not(target_arch = "x86_64"))]
    const NEVER_OLD: &[c_long] = &[];

    /// The same number everywhere, as all calls since Linux 5.1; libc names it on some architectures only.
    const FCHMODAT2: c_long = 452;

    /// What makes, changes and removes files by their names, and what belongs to a file and not to its bytes.
    const CHANGES: &[c_long] = &[
        libc::SYS_truncate,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_mkdirat,
        libc::SYS_linkat,
        libc::SYS_symlinkat,
        libc::SYS_unlinkat,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        FCHMODAT2,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_utimensat,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
        libc::SYS_fremovexattr,
    ];
    #[cfg(target_arch = "x86_64")]
    const CHANGES_OLD: &[c_long] = &[
        libc::SYS_creat,
        libc::SYS_rename,
        libc::SYS_mkdir,
        libc::SYS_rmdir,
        libc::SYS_link,
        libc::SYS_symlink,
        libc::SYS_unlink,
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_lchown,
        libc::SYS_utime,
        libc::SYS_utimes,
        libc::SYS_futimesat,
    ];
    #[cfg(not(target_arch = "x86_64"))]
    const CHANGES_OLD: &[c_long] = &[];

    /// What opens files.
    const OPENS: &[c_long] = &[
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_chdir,
        libc::SYS_fchdir,
        libc::SYS_inotify_init1,
        libc::SYS_inotify_add_watch,
    ];
    #[cfg(target_arch = "x86_64")]
    const OPENS_OLD: &[c_long] = &[libc::SYS_open, libc::SYS_inotify_init];
    #[cfg(not(target_arch = "x86_64"))]
    const OPENS_OLD: &[c_long] = &[];

    /// Programs, processes, and signals to them, but for threads of its own and signals to itself.
    const PROCESSES: &[c_long] = &[
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_unshare,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_setpgid,
        libc::SYS_setsid,
        libc::SYS_setpriority,
        libc::SYS_memfd_create,
    ];
    #[cfg(target_arch = "x86_64")]
    const PROCESSES_OLD: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
    #[cfg(not(target_arch = "x86_64"))]
    const PROCESSES_OLD: &[c_long] = &[];

    /// musl signals its own threads by it.
    #[cfg(not(target_env = "musl"))]
    const SIGNALS_OLD: &[c_long] = &[libc::SYS_tkill];
    #[cfg(target_env = "musl")]
    const SIGNALS_OLD: &[c_long] = &[];

    fn always(calls: &'static [c_long]) -> impl Iterator<Item = Call> {
        calls.iter().map(|&call| (call, Refused::Always))
    }

    fn but<const N: usize>(argument: u8, values: [u32; N]) -> Refused {
        Refused::But { argument, values: values.into() }
    }

    fn never() -> impl Iterator<Item = Call> {
        // limits of another process can end it
        let limits = (libc::SYS_prlimit64, but(0, [0]));
        always(NEVER).chain(always(NEVER_OLD)).chain([limits])
    }

    /// For the master, and by inheritance for each process that it forks.
    ///
    /// At a reload it opens files, binds, and may run getent(1), which asks name servers.
    pub(in super::super) fn of_master() -> Vec<Call> {
        let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
        let protocols = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];
        // it connects without connect(2), which a child's domain does not know
        let connects = |argument| Refused::If { argument, bits: libc::MSG_FASTOPEN as u32 };
        let own = [
            (libc::SYS_socket, but(0, families.map(|family| family as u32))),
            // a domain does not know TCP over several paths either
            (libc::SYS_socket, but(2, protocols.map(|protocol| protocol as u32))),
            (libc::SYS_sendto, connects(3)),
            (libc::SYS_sendmsg, connects(2)),
            (libc::SYS_sendmmsg, connects(3)),
            // asked whether there is a second thread
            (libc::SYS_unshare, but(0, [libc::CLONE_THREAD as u32])),
        ];
        never().chain(own).collect()
    }

    /// For a process with this id: signals to itself alone.
    pub(in super::super) fn of_itself(pid: u32) -> Vec<Call> {
        vec![(libc::SYS_kill, but(0, [pid])), (libc::SYS_tgkill, but(0, [pid]))]
    }

    /// For a process that serves clients.
    pub(in super::super) fn of_worker(needs: Needs) -> Vec<Call> {
        let own = [
            // its flags lie in memory, where a filter can't look
            (libc::SYS_clone3, Refused::Unknown),
            (libc::SYS_clone, Refused::Unless { argument: 0, bits: libc::CLONE_THREAD as u32 }),
            (libc::SYS_mmap, Refused::If { argument: 2, bits: libc::PROT_EXEC as u32 }),
            (libc::SYS_mprotect, Refused::If { argument: 2, bits: libc::PROT_EXEC as u32 }),
            (libc::SYS_pkey_mprotect, Refused::If { argument: 2, bits: libc::PROT_EXEC as u32 }),
            (libc::SYS_listen, Refused::Always),
        ];
        let processes = always(PROCESSES).chain(always(PROCESSES_OLD)).chain(always(SIGNALS_OLD));
        let mut calls: Vec<Call> = never().chain(processes).chain(own).collect();
        if !needs.writes {
            calls.extend(always(CHANGES).chain(always(CHANGES_OLD)));
        }
        if !needs.reads && !needs.writes {
            calls.extend(always(OPENS).chain(always(OPENS_OLD)));
        }
        if !needs.connects {
            calls.extend(always(&[libc::SYS_socket, libc::SYS_bind]));
            if !needs.reconnects {
                calls.extend(always(&[libc::SYS_connect]));
            }
        }
        calls
    }
}
