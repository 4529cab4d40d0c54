//! Each setting by the facts that a unit has under it, and each case that looks alike and is another.

use super::*;
use facts::Capabilities;
use mounts::Mounts;

const BIND: u64 = 1 << 10;

/// A unit whose user has no rights, and which sees these mounts, each as `POINT ROOT OPTIONS TYPE`.
fn unit(mounts: &[&str]) -> Facts {
    let line = |mount: &&str| {
        let [point, root, options, kind] = mount.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{mount}")
        };
        format!("1 0 8:1 {root} {point} {options} - {kind} x rw\n")
    };
    let mounts = [&["/ / rw ext4"], mounts].concat().iter().map(line).collect::<String>();
    Facts {
        mounts: Mounts::parse(&mounts),
        runtime_directory: Some("/run/forkd".into()),
        first_free_port: 1024,
        ..Facts::default()
    }
}

/// The setting that is named, if one is, and the way out.
#[track_caller]
fn says(attempt: Attempt<'_>, errno: i32, facts: &Facts, expected: &str) {
    let said = advice(attempt, Some(errno), facts).unwrap_or_default();
    assert!(
        said.starts_with(expected) && said.is_empty() == expected.is_empty(),
        "{attempt:?} {errno}: {said}"
    );
}

const HIDDEN: &str = "/home /systemd/inaccessible/dir ro tmpfs";
const EMPTY: &str = "/home / rw tmpfs";
const OTHERS_TMP: &str = "/tmp /tmp/systemd-private-0a1b-forkd.service-XyZ/tmp rw ext4";

#[test]
fn a_process_is_a_unit_s_if_systemd_has_started_it() {
    let is = |variables: &[(&str, &str)]| {
        let value = |name: &str| variables.iter().find(|variable| variable.0 == name);
        is_started_by_systemd(|name| value(name).map(|variable| variable.1.into()), &[70, 7])
    };
    let invocation = ("INVOCATION_ID", "0a1b");
    // as its parent, it has started a shell
    for pid in ["70", "7"] {
        assert!(is(&[invocation, ("SYSTEMD_EXEC_PID", pid)]), "{pid}");
    }
    assert!(is(&[invocation]));
    // a terminal's variables, which a shell has handed down
    for pid in ["1", "", "x"] {
        assert!(!is(&[invocation, ("SYSTEMD_EXEC_PID", pid)]), "{pid}");
    }
    assert!(!is(&[("SYSTEMD_EXEC_PID", "70")]) && !is(&[]));
}

#[test]
fn what_can_t_be_read_is_hidden_or_not_allowed() {
    let (home, tmp, srv) = (
        Attempt::Read(Path::new("/home/u/www")),
        Attempt::Read(Path::new("/tmp/www")),
        Attempt::Read(Path::new("/srv/w")),
    );
    let hides = "ProtectHome= hides /home from this unit: put it elsewhere";
    says(home, libc::EACCES, &unit(&[HIDDEN]), hides);
    says(
        home,
        libc::ENOENT,
        &unit(&[EMPTY]),
        "ProtectHome=tmpfs may hide /home from this unit: put it elsewhere",
    );
    // a home directory that is closed, or not there
    says(home, libc::EACCES, &unit(&[]), "the user of this unit");
    says(home, libc::ENOENT, &unit(&["/home /home rw ext4"]), "");
    says(tmp, libc::ENOENT, &unit(&[OTHERS_TMP]), "PrivateTmp= gives this unit its own /tmp");
    says(tmp, libc::EACCES, &unit(&[OTHERS_TMP]), "the user of this unit");
    says(tmp, libc::ENOENT, &unit(&[]), "");
    says(
        srv,
        libc::EACCES,
        &unit(&["/srv /host/inaccessible/dir ro tmpfs"]),
        "InaccessiblePaths= hides /srv",
    );
    says(srv, libc::EACCES, &Facts { is_root: true, ..unit(&[]) }, "");
    says(srv, libc::ENOTDIR, &unit(&[]), "");
}

#[test]
fn what_can_t_be_made_has_a_place_where_it_can() {
    let make = |path: &'static str| Attempt::Make(Path::new(path));
    says(
        make("/run/x.sock"),
        libc::EACCES,
        &unit(&[]),
        "the user of this unit (User=, DynamicUser=) has no right to write to /run: choose a path in /run/forkd",
    );
    says(
        make("/run/no/x.sock"),
        libc::ENOENT,
        &unit(&[]),
        "this unit sees no directory /run/no: choose a path in /run/forkd",
    );
    says(
        make("/etc/x.pid"),
        libc::EROFS,
        &unit(&["/ / ro ext4"]),
        "ProtectSystem= or ReadOnlyPaths= lets this unit only read /etc: choose",
    );
    says(
        make("/home/u/x.pid"),
        libc::EROFS,
        &unit(&["/home /home ro ext4"]),
        "ProtectHome= lets this unit only read /home: choose",
    );
    says(
        make("/home/u/x.pid"),
        libc::EACCES,
        &unit(&[HIDDEN]),
        "ProtectHome= hides /home from this unit: choose",
    );
    says(
        make("/home/u/x.pid"),
        libc::ENOENT,
        &unit(&[EMPTY]),
        "ProtectHome=tmpfs may hide /home from this unit: choose",
    );
    let none = Facts { runtime_directory: None, ..unit(&[]) };
    says(
        make("/run/x"),
        libc::EACCES,
        &none,
        "the user of this unit (User=, DynamicUser=) has no right to write to /run: set RuntimeDirectory=NAME",
    );
    let filtered = Facts { is_filtered: true, ..unit(&[]) };
    says(
        make("/run/x"),
        libc::EAFNOSUPPORT,
        &filtered,
        "RestrictAddressFamilies= of this unit leaves AF_UNIX out",
    );
    says(
        make("/run/forkd/x"),
        libc::EAFNOSUPPORT,
        &filtered,
        "RestrictAddressFamilies= of this unit leaves AF_UNIX out",
    );
    says(
        Attempt::ReachManager,
        libc::EAFNOSUPPORT,
        &filtered,
        "RestrictAddressFamilies= of this unit leaves AF_UNIX out",
    );
    says(Attempt::ReachManager, libc::EACCES, &filtered, "");
    // it is another thing that is wrong
    says(make("/run/forkd/x"), libc::EACCES, &unit(&[]), "");
    says(make("/run/x"), libc::EADDRINUSE, &unit(&[]), "");
    says(make("/run/x"), libc::EACCES, &Facts { is_root: true, ..unit(&[]) }, "");
}

#[test]
fn all_that_a_program_consists_of_is_named_at_once() {
    let files: Vec<PathBuf> =
        ["/usr/local/bin/hello", "/usr/bin/dash", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"]
            .map(Into::into)
            .into();
    let execute = |at: usize| Attempt::Execute { file: &files[at], files: &files };
    let line = "NoExecPaths= forbids this unit to execute that: add ExecPaths=";
    let all = format!("{line}/usr/local/bin/hello /usr/bin/dash /usr/lib");
    let closed = &["/ / rw,noexec ext4"];
    says(execute(0), libc::EACCES, &unit(closed), &all);
    let rest = [closed[0], "/usr/local/bin/hello /hello rw ext4"];
    says(execute(1), libc::EACCES, &unit(&rest), &format!("{line}/usr/bin/dash /usr/lib"));
    // a program that lies beside libraries
    let git = [PathBuf::from("/usr/lib/git-core/git")];
    says(
        Attempt::Execute { file: &git[0], files: &git },
        libc::EACCES,
        &unit(closed),
        &format!("{line}/usr/lib/git-core/git"),
    );
    // the mode of the file
    says(execute(0), libc::EACCES, &unit(&[]), "");
    says(execute(0), libc::EACCES, &unit(&rest), "");
    says(execute(0), libc::ENOENT, &unit(closed), "");
    for (path, mount, errno, expected) in [
        ("/home/u/hello", HIDDEN, libc::EACCES, "ProtectHome= hides /home"),
        ("/tmp/hello", OTHERS_TMP, libc::ENOENT, "PrivateTmp= gives this unit its own /tmp"),
    ] {
        let files = [PathBuf::from(path)];
        says(
            Attempt::Execute { file: &files[0], files: &files },
            errno,
            &unit(&[closed[0], mount]),
            expected,
        );
    }
}

#[test]
fn an_address_is_forbidden_by_family_capability_or_network() {
    let bind = |address: &str| Attempt::Bind { address: address.parse().unwrap(), datagrams: false };
    let (four, six, high) = (bind("127.0.0.1:80"), bind("[::]:80"), bind("10.0.0.1:8080"));
    let filtered = Facts { is_filtered: true, ..unit(&[]) };
    says(
        four,
        libc::EAFNOSUPPORT,
        &filtered,
        "RestrictAddressFamilies= of this unit leaves AF_INET out: let its .socket unit listen there (ListenStream=127.0.0.1:80)",
    );
    says(six, libc::EAFNOSUPPORT, &filtered, "RestrictAddressFamilies= of this unit leaves AF_INET6 out");
    // a kernel without IPv6
    says(six, libc::EAFNOSUPPORT, &unit(&[]), "");
    let has = |effective, bounding| Capabilities { effective, bounding };
    for (capabilities, has_own_users, is_root, expected) in [
        (has(0, 0), true, false, "CapabilityBoundingSet= of this unit leaves CAP_NET_BIND_SERVICE out"),
        (has(0, BIND), false, false, "AmbientCapabilities= of this unit leaves CAP_NET_BIND_SERVICE out"),
        (has(BIND, BIND), true, false, "PrivateUsers= has the capabilities of this unit count"),
        (has(BIND, BIND), false, true, ""),
    ] {
        let facts = Facts { capabilities, has_own_users, is_root, ..unit(&[]) };
        says(four, libc::EACCES, &facts, expected);
    }
    // a security policy
    says(high, libc::EACCES, &unit(&[]), "");
    says(high, libc::EACCES, &Facts { capabilities: has(BIND, BIND), has_own_users: true, ..unit(&[]) }, "");
    says(four, libc::EACCES, &Facts { first_free_port: 0, ..unit(&[]) }, "");
    says(
        high,
        libc::EPERM,
        &unit(&[]),
        "SocketBindDeny= of this unit may forbid it: add SocketBindAllow=ipv4:tcp:8080",
    );
    let alone = Facts { has_own_network: true, ..unit(&[]) };
    says(high, libc::EADDRNOTAVAIL, &alone, "PrivateNetwork= gives this unit its own network");
    says(high, libc::EADDRNOTAVAIL, &unit(&[]), "");
    let datagrams = Attempt::Bind { address: "[::1]:7".parse().unwrap(), datagrams: true };
    let said = advice(datagrams, Some(libc::EAFNOSUPPORT), &filtered).unwrap();
    assert!(said.contains("(ListenDatagram=[::1]:7)"), "{said}");
}

#[test]
fn a_user_is_the_unit_s_affair() {
    let root = |effective| Facts {
        is_root: true,
        capabilities: Capabilities { effective, bounding: 0 },
        ..unit(&[])
    };
    let (user, chroot) = (Attempt::ChangeUser, Attempt::ChangeRoot);
    says(user, libc::EPERM, &unit(&[]), "User= or DynamicUser= of this unit has chosen its user");
    says(user, libc::EPERM, &root(0), "CapabilityBoundingSet= of this unit leaves CAP_SETGID CAP_SETUID out");
    says(user, libc::EPERM, &root(1 << 6), "CapabilityBoundingSet= of this unit leaves CAP_SETUID out");
    says(user, libc::EPERM, &root(u64::MAX), "");
    let own_users = Facts { has_own_users: true, ..root(u64::MAX) };
    says(
        user,
        libc::EPERM,
        &Facts { is_filtered: true, ..own_users },
        "PrivateUsers= leaves this unit no users but root and its own",
    );
    says(user, libc::EINVAL, &root(u64::MAX), "");
    says(chroot, libc::EPERM, &unit(&[]), "User= or DynamicUser= of this unit is not root");
    says(chroot, libc::EPERM, &root(0), "CapabilityBoundingSet= of this unit leaves CAP_SYS_CHROOT out");
    says(chroot, libc::EPERM, &root(u64::MAX), "");
    // the calls themselves
    let filtered = Facts { is_filtered: true, ..root(u64::MAX) };
    says(user, libc::EPERM, &filtered, "SystemCallFilter= of this unit may forbid it: add @setuid");
    says(chroot, libc::EPERM, &filtered, "SystemCallFilter= of this unit may forbid it: add chroot");
}

#[test]
fn names_are_looked_up_by_a_program() {
    assert!(
        advice(Attempt::LookUp, None, &unit(&["/ / rw,noexec ext4"])).unwrap().starts_with("NoExecPaths= ")
    );
    assert_eq!(advice(Attempt::LookUp, None, &unit(&[])), None);
}

#[test]
fn what_is_bound_where_others_do_not_come_is_told() {
    let told = |path: Option<&str>, facts: &Facts| secluded(path.map(Path::new), facts).unwrap_or_default();
    let alone = Facts { has_own_network: true, ..unit(&[OTHERS_TMP]) };
    assert!(told(None, &alone).starts_with("PrivateNetwork= "));
    assert!(told(Some("/tmp/x"), &alone).starts_with("PrivateTmp= "));
    assert_eq!(told(Some("/run/forkd/x"), &alone), "");
    assert_eq!(told(Some("/tmp/x"), &unit(&[])), "");
    assert_eq!(told(None, &unit(&[])), "");
}
