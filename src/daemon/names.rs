//! Finds users and groups by name or number, before privileges are dropped.
//!
//! getent(1) is asked, and where that is missing `/etc/passwd` and `/etc/group` are read: never the
//! C library, whose name service crashes static programs (see `forkd_net::getent`).
//!
//! The invariant: a key that consists of digits may be a name; a name goes before a number.

use std::fs;
use std::io;

use forkd_net::getent::{Answer, ask};

/// What is needed to become a user; a line of passwd(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The id of the primary group.
    pub gid: u32,
    /// The home directory.
    pub home: String,
    /// The login shell.
    pub shell: String,
}

/// A line of group(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name of the group.
    pub name: String,
    /// The group id.
    pub gid: u32,
    /// The names of those for whom it is a supplementary group.
    pub members: Vec<String>,
}

/// Finds a user by name or number; `None` if there is no such user.
///
/// # Errors
///
/// What running getent(1) or reading `/etc/passwd` failed with.
///
/// # Fork safety
///
/// Waits for a child: only before SIGCHLD is ignored. The same is true of [`group`] and
/// [`supplementary_groups`].
pub fn user(key: &str) -> io::Result<Option<User>> {
    look_up("passwd", key, parse_user, |user| (&user.name, user.uid))
}

/// Finds a group by name or number; `None` if there is no such group.
///
/// # Errors
///
/// What running getent(1) or reading `/etc/group` failed with.
pub fn group(key: &str) -> io::Result<Option<Group>> {
    look_up("group", key, parse_group, |group| (&group.name, group.gid))
}

/// Returns the ids of a user's supplementary groups, as initgroups(3) would set them.
///
/// # Errors
///
/// What running getent(1) or reading `/etc/group` failed with.
pub fn supplementary_groups(user: &str) -> io::Result<Vec<u32>> {
    Ok(match ask("initgroups", user)? {
        Answer::Known(line) => parse_initgroups(&line),
        Answer::Unknown => Vec::new(),
        Answer::NoService => groups_of(&fs::read_to_string("/etc/group")?, user),
    })
}

/// Asks getent(1), or where there is none reads the database's file in /etc.
fn look_up<T>(
    database: &str,
    key: &str,
    parse: impl Fn(&str) -> Option<T> + Clone,
    identity: impl Fn(&T) -> (&str, u32),
) -> io::Result<Option<T>> {
    Ok(match ask(database, key)? {
        Answer::Known(line) => line.lines().find_map(parse),
        Answer::Unknown => None,
        Answer::NoService => {
            let text = fs::read_to_string(format!("/etc/{database}"))?;
            find(text.lines().filter_map(parse), key, identity)
        }
    })
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let (_comment, home) = (fields.next()?, fields.next()?.into());
    // passwd(5): where there is none it is this one
    let shell = fields.next().filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh").into();
    Some(User { name: name.into(), uid, gid, home, shell })
}

fn parse_group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let gid = fields.next()?.parse().ok()?;
    let members = fields.next()?.split(',').map(|member| member.trim().to_owned());
    Some(Group { name: name.into(), gid, members: members.filter(|member| !member.is_empty()).collect() })
}

/// Parses `name   1 2 3`, the one line that `getent initgroups` prints.
fn parse_initgroups(line: &str) -> Vec<u32> {
    line.split_whitespace().skip(1).filter_map(|gid| gid.parse().ok()).collect()
}

fn groups_of(text: &str, user: &str) -> Vec<u32> {
    let groups = text.lines().filter_map(parse_group);
    groups.filter(|group| group.members.iter().any(|member| member == user)).map(|group| group.gid).collect()
}

fn find<T>(
    items: impl Iterator<Item = T> + Clone,
    key: &str,
    identity: impl Fn(&T) -> (&str, u32),
) -> Option<T> {
    let by_name = items.clone().find(|item| identity(item).0 == key);
    by_name.or_else(|| {
        let number: u32 = key.parse().ok()?;
        items.clone().find(|item| identity(item).1 == number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\n\n+::::::\n\
        7:x:1007:100::/:/bin/false\nseven:x:7:70:S,,,:/:/bin/false\neight:x:8:8::/:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:syslog, forkd\nforkd:x:990:\nlog:x:5:forkd,x\nbroken:x\n";

    #[test]
    fn a_user_is_found_by_name_then_by_number() {
        let of = |key| find(PASSWD.lines().filter_map(parse_user), key, |user| (&user.name, user.uid));
        let (name, home, shell) = ("root".into(), "/root".into(), "/bin/sh".into());
        assert_eq!(of("root"), Some(User { name, uid: 0, gid: 0, home, shell }));
        assert_eq!(of("eight").unwrap().shell, "/bin/sh");
        assert_eq!(of("7").unwrap().uid, 1007);
        assert_eq!(of("1007").unwrap().name, "7");
        assert_eq!(of("0").unwrap().name, "root");
        assert_eq!(of("nobody"), None);
        assert_eq!(of("+"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn the_groups_of_a_user_are_those_that_name_it() {
        assert_eq!(groups_of(GROUP, "forkd"), [4, 5]);
        assert_eq!(groups_of(GROUP, "fork"), [0; 0]);
        assert_eq!(groups_of(GROUP, ""), [0; 0]);
    }

    #[test]
    fn the_answer_of_initgroups_is_a_name_and_numbers() {
        assert_eq!(parse_initgroups("forkd                 4 5\n"), [4, 5]);
        assert_eq!(parse_initgroups("root                 \n"), [0; 0]);
        assert_eq!(parse_initgroups(""), [0; 0]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn root_is_found_on_this_machine() {
        assert_eq!(user("root").unwrap().unwrap().uid, 0);
        assert_eq!(user("0").unwrap().unwrap().name, "root");
        assert_eq!(group("0").unwrap().unwrap().name, "root");
        assert_eq!(user("no-such-user-here").unwrap(), None);
        assert_eq!(group("no-such-group-here").unwrap(), None);
    }
}
