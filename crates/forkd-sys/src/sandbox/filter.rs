//! A filter for system calls (seccomp(2)): which are refused, as a program for the kernel.
//!
//! When the kernel gets a filter it translates the program, and runs it once for each number that a call can have, to know
//! which it lets through always. With a program that compares one number after the other that takes several times as long
//! as the fork of a child; here each comparison leaves half of the numbers.

use std::io;

/// When a system call is refused.
///
/// A filter sees arguments as they are passed, and no memory that they point to. Of each it looks at 32 bits, the lower
/// ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Always, with EPERM.
    Always,
    /// Where one of these bits is set in this argument.
    If {
        /// Its number, from 0.
        argument: u8,
        /// The bits.
        bits: u32,
    },
    /// Where none of these bits is set in this argument.
    Unless {
        /// Its number, from 0.
        argument: u8,
        /// The bits.
        bits: u32,
    },
    /// Where this argument is none of these.
    But {
        /// Its number, from 0.
        argument: u8,
        /// What it may be.
        values: Vec<u32>,
    },
    /// With ENOSYS, as by a kernel that does not have it: the C library takes the older call.
    Unknown,
}

pub use system::{Filter, filters_calls};

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod system {
    use std::collections::BTreeMap;

    use libc::{sock_filter, sock_fprog};

    use super::{Refused, io};

    /// Calls from this number on are newer than the lists (Linux 6.10); so are those of other calling conventions
    /// (x32).
    const NEW: u32 = 463;

    /// Linux/audit.h: how this program makes calls; numbers mean others where they are made otherwise.
    const CONVENTION: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

    /// Where what the program looks at lies: seccomp(2), `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const ARGUMENTS: u32 = 16;

    /// linux/bpf_common.h
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
    const IS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const IS_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const HAS_ONE_OF: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;

    /// Refuses system calls.
    #[derive(Debug, Clone)]
    pub struct Filter(Box<[sock_filter]>);

    impl Filter {
        /// Makes one; calls of which nothing is said are let through, if they are not newer than this program.
        ///
        /// # Errors
        ///
        /// If there are too many.
        pub fn new(calls: impl IntoIterator<Item = (libc::c_long, Refused)>) -> io::Result<Self> {
            let mut all = BTreeMap::<u32, Vec<Refused>>::new();
            for (number, how) in calls {
                all.entry(number as u32).or_default().push(how);
            }
            let program = Program::of(&ranges(&all));
            match program.len() <= libc::BPF_MAXINSNS as usize {
                true => Ok(Self(program)),
                false => Err(io::ErrorKind::InvalidInput.into()),
            }
        }

        /// Puts it on this process, its threads to come and its children.
        ///
        /// # Errors
        ///
        /// As seccomp(2).
        pub fn put_on(&self) -> io::Result<()> {
            let program = sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
            let (operation, program) = (libc::SECCOMP_SET_MODE_FILTER as usize, (&raw const program).addr());
            let put_on = || {
                // SAFETY: the kernel copies the program, which lives through the call, and writes to no memory.
                unsafe { crate::raw::syscall4(libc::SYS_seccomp, operation, 0, program, 0) }.map(|_| ())
            };
            match put_on() {
                // a process that can gain privileges may not
                Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                    super::super::refuse_new_privileges()?;
                    put_on()
                }
                done => done,
            }
        }
    }

    /// Whether this process may put on filters.
    pub fn filters_calls() -> bool {
        let action = libc::SECCOMP_RET_ERRNO;
        let (operation, action) = (libc::SECCOMP_GET_ACTION_AVAIL as usize, (&raw const action).addr());
        // SAFETY: the call reads four bytes at the address of a local.
        unsafe { crate::raw::syscall4(libc::SYS_seccomp, operation, 0, action, 0) }.is_ok()
    }

    /// What becomes of a call.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Verdict<'a> {
        Allowed,
        Refused,
        Unknown,
        /// It is refused if one of these says so.
        Depends(&'a [Refused]),
    }

    impl<'a> Verdict<'a> {
        fn of(rules: &'a [Refused]) -> Self {
            match rules {
                rules if rules.contains(&Refused::Unknown) => Self::Unknown,
                rules if rules.contains(&Refused::Always) => Self::Refused,
                rules => Self::Depends(rules),
            }
        }
    }

    /// The numbers that begin a range, with what becomes of all that are in it: of neighbours it is not the same.
    fn ranges(calls: &BTreeMap<u32, Vec<Refused>>) -> Vec<(u32, Verdict<'_>)> {
        let mut ranges = vec![(0, Verdict::Allowed)];
        let mut begin = |number, verdict| {
            ranges.pop_if(|(begins, _)| *begins == number);
            if ranges.last().is_none_or(|(_, last)| *last != verdict) {
                ranges.push((number, verdict));
            }
        };
        for (&number, rules) in calls.range(..NEW) {
            begin(number, Verdict::of(rules));
            begin(number + 1, Verdict::Allowed);
        }
        begin(NEW, Verdict::Unknown);
        ranges
    }

    /// A program in the making, from its end on: it jumps forwards only, so that what is jumped to is there already. A
    /// place in it is counted from the end.
    struct Program {
        reversed: Vec<sock_filter>,
        allow: usize,
        refuse: usize,
        unknown: usize,
    }

    impl Program {
        fn of(ranges: &[(u32, Verdict<'_>)]) -> Box<[sock_filter]> {
            let mut program = Self { reversed: Vec::new(), allow: 0, refuse: 0, unknown: 0 };
            program.allow = program.answer(libc::SECCOMP_RET_ALLOW);
            program.refuse = program.answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
            program.unknown = program.answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
            program.search(ranges);
            let number = program.load(NUMBER);
            let kill = program.answer(libc::SECCOMP_RET_KILL_PROCESS);
            program.jump(IS_EQUAL, CONVENTION, number, kill);
            program.load(ARCH);
            program.reversed.into_iter().rev().collect()
        }

        /// Finds the range of the number.
        fn search(&mut self, ranges: &[(u32, Verdict<'_>)]) -> usize {
            match ranges {
                [] => self.allow,
                [(_, verdict)] => self.verdict(*verdict),
                ranges => {
                    let (low, high) = ranges.split_at(ranges.len() / 2);
                    let (begin, high) = (high[0].0, self.search(high));
                    let low = self.search(low);
                    self.jump(IS_AT_LEAST, begin, high, low)
                }
            }
        }

        fn verdict(&mut self, verdict: Verdict<'_>) -> usize {
            match verdict {
                Verdict::Allowed => self.allow,
                Verdict::Refused => self.refuse,
                Verdict::Unknown => self.unknown,
                Verdict::Depends(rules) => rules.iter().fold(self.allow, |next, rule| self.rule(rule, next)),
            }
        }

        /// Refuses a call if the rule does; goes on with `next` otherwise.
        fn rule(&mut self, rule: &Refused, next: usize) -> usize {
            let argument = match rule {
                Refused::If { argument, bits } => {
                    self.jump(HAS_ONE_OF, *bits, self.refuse, next);
                    argument
                }
                Refused::Unless { argument, bits } => {
                    self.jump(HAS_ONE_OF, *bits, next, self.refuse);
                    argument
                }
                Refused::But { argument, values } if !values.is_empty() => {
                    let refuse = self.refuse;
                    values.iter().fold(refuse, |no, value| self.jump(IS_EQUAL, *value, next, no));
                    argument
                }
                Refused::Always | Refused::But { .. } => return self.refuse,
                Refused::Unknown => return self.unknown,
            };
            self.load(ARGUMENTS + 8 * u32::from(*argument))
        }

        fn answer(&mut self, answer: u32) -> usize {
            self.step(sock_filter { code: RETURN, jt: 0, jf: 0, k: answer })
        }

        /// Goes on with the step that comes next.
        fn load(&mut self, place: u32) -> usize {
            self.step(sock_filter { code: LOAD, jt: 0, jf: 0, k: place })
        }

        fn jump(&mut self, code: u16, k: u32, yes: usize, no: usize) -> usize {
            let (yes, no) = (self.near(yes), self.near(no));
            let from_here = |to: usize| (self.reversed.len() - to - 1) as u8;
            self.step(sock_filter { code, jt: from_here(yes), jf: from_here(no), k })
        }

        /// Where to jump to for a place: a jump that depends on something leads over 255 steps at the most.
        fn near(&mut self, place: usize) -> usize {
            match self.reversed.len() - place - 1 {
                // one step less, as there may be such a jump for the other way
                ..255 => place,
                steps => self.step(sock_filter { code: JUMP, jt: 0, jf: 0, k: steps as u32 }),
            }
        }

        fn step(&mut self, step: sock_filter) -> usize {
            self.reversed.push(step);
            self.reversed.len() - 1
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// What the kernel would answer, and after how many steps.
        fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u32; 6]) -> (u32, usize) {
            let (mut at, mut value, mut steps) = (0, 0, 0);
            loop {
                let sock_filter { code, jt, jf, k } = program[at];
                let holds = match code {
                    RETURN => return (k, steps),
                    LOAD if k == NUMBER => {
                        value = number;
                        None
                    }
                    LOAD if k == ARCH => {
                        value = arch;
                        None
                    }
                    LOAD => {
                        value = arguments[(k - ARGUMENTS) as usize / 8];
                        None
                    }
                    JUMP => {
                        at += k as usize;
                        None
                    }
                    IS_EQUAL => Some(value == k),
                    IS_AT_LEAST => Some(value >= k),
                    HAS_ONE_OF => Some(value & k != 0),
                    code => panic!("{code}"),
                };
                at += 1 + holds.map_or(0, |holds| usize::from(if holds { jt } else { jf }));
                steps += 1;
            }
        }

        const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
        const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

        /// The same without a program.
        fn expected(calls: &[(libc::c_long, Refused)], number: u32, arguments: [u32; 6]) -> u32 {
            let argument = |argument: u8| arguments[usize::from(argument)];
            let answers = calls.iter().filter(|(call, _)| *call as u32 == number).map(|(_, how)| match how {
                Refused::Unknown => UNKNOWN,
                Refused::Always => REFUSED,
                Refused::If { argument: a, bits } if argument(*a) & bits != 0 => REFUSED,
                Refused::Unless { argument: a, bits } if argument(*a) & bits == 0 => REFUSED,
                Refused::But { argument: a, values } if !values.contains(&argument(*a)) => REFUSED,
                _ => ALLOWED,
            });
            let answers: Vec<u32> = answers.chain((number >= NEW).then_some(UNKNOWN)).collect();
            let first = [UNKNOWN, REFUSED].into_iter().find(|answer| answers.contains(answer));
            first.unwrap_or(ALLOWED)
        }

        fn is_as_expected(calls: &[(libc::c_long, Refused)]) {
            let Filter(program) = Filter::new(calls.iter().cloned()).expect("a filter");
            for number in (0..NEW + 50).chain([0x4000_0000, 0x4000_0027, u32::MAX]) {
                for arguments in
                    [[0; 6], [1; 6], [6; 6], [u32::MAX; 6], [1, 2, 3, 4, 5, 6], [8, 7, 6, 5, 4, 3]]
                {
                    let answer = run(&program, CONVENTION, number, arguments);
                    assert_eq!(answer.0, expected(calls, number, arguments), "{number} {arguments:?}");
                    assert!(answer.1 < 32, "{} steps for {number}", answer.1);
                }
                assert_eq!(run(&program, 3, number, [0; 6]).0, libc::SECCOMP_RET_KILL_PROCESS);
            }
        }

        #[test]
        fn a_program_says_of_each_number_what_the_list_says() {
            is_as_expected(&[]);
            is_as_expected(&[(0, Refused::Always), (462, Refused::Always), (463, Refused::Always)]);
            is_as_expected(&[
                (1, Refused::If { argument: 0, bits: 4 }),
                (2, Refused::Unless { argument: 5, bits: 5 }),
                (2, Refused::But { argument: 1, values: vec![1, 7] }),
                (2, Refused::If { argument: 2, bits: 8 }),
                (3, Refused::But { argument: 0, values: vec![7] }),
                (3, Refused::Unknown),
                (4, Refused::But { argument: 0, values: vec![] }),
                (9, Refused::If { argument: 0, bits: 4 }),
                (9, Refused::Always),
            ]);
        }

        #[test]
        fn numbers_side_by_side_that_are_treated_alike_are_one_range() {
            let calls = (5..100).map(|number| (number, vec![Refused::Always])).collect();
            let (allowed, refused) = (Verdict::Allowed, Verdict::Refused);
            assert_eq!(ranges(&calls), [(0, allowed), (5, refused), (100, allowed), (NEW, Verdict::Unknown)]);
            let calls = [(0, vec![Refused::Unknown]), (NEW - 1, vec![Refused::Unknown])].into();
            assert_eq!(ranges(&calls), [(0, Verdict::Unknown), (1, allowed), (NEW - 1, Verdict::Unknown)]);
        }

        #[test]
        fn a_program_may_be_longer_than_a_jump() {
            let how = |call| match call % 4 {
                0 => Refused::Always,
                1 => Refused::But { argument: 3, values: vec![1, 2, call] },
                2 => Refused::Unless { argument: 2, bits: 3 },
                _ => Refused::If { argument: 0, bits: 6 },
            };
            let calls: Vec<_> = (0..NEW).map(|call| (libc::c_long::from(call), how(call))).collect();
            is_as_expected(&calls);
        }

        #[test]
        fn what_is_too_long_for_the_kernel_is_refused() {
            let values: Vec<u32> = (0..5000).collect();
            assert!(Filter::new([(1, Refused::But { argument: 0, values })]).is_err());
        }

        /// Runs it in a thread, which alone is confined then.
        fn confined<T: Send>(work: impl FnOnce() -> T + Send) -> T {
            std::thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
        }

        #[cfg(target_arch = "x86_64")]
        #[test]
        fn the_kernel_refuses_by_number_and_by_argument() {
            use rustix::io::Errno;
            let calls = [
                (libc::SYS_getppid, Refused::Always),
                (libc::SYS_getpgid, Refused::But { argument: 0, values: vec![0, 0x7fff_0000] }),
                (libc::SYS_umask, Refused::If { argument: 0, bits: 0o700 }),
                (libc::SYS_getpriority, Refused::Unless { argument: 0, bits: 2 }),
                (libc::SYS_getsid, Refused::Unknown),
            ];
            let call = |number, argument| {
                // SAFETY: these calls take numbers and touch no memory.
                let answer = unsafe { crate::raw::syscall4(number, argument, 0, 0, 0) };
                answer.err().and_then(|error| Errno::from_io_error(&error))
            };
            confined(|| {
                Filter::new(calls).expect("a filter").put_on().expect("put on");
                assert_eq!(call(libc::SYS_getppid, 0), Some(Errno::PERM));
                assert_eq!(
                    (call(libc::SYS_getpgid, 0), call(libc::SYS_getpgid, 1)),
                    (None, Some(Errno::PERM))
                );
                assert_eq!(
                    (call(libc::SYS_umask, 0o700), call(libc::SYS_umask, 0o022)),
                    (Some(Errno::PERM), None)
                );
                assert_eq!(
                    (call(libc::SYS_getpriority, 0), call(libc::SYS_getpriority, 2)),
                    (Some(Errno::PERM), None)
                );
                assert_eq!(call(libc::SYS_getsid, 0), Some(Errno::NOSYS));
                assert_eq!(call(500, 0), Some(Errno::NOSYS), "a call that is newer");
                assert_eq!(call(libc::SYS_getppid | 0x4000_0000, 0), Some(Errno::NOSYS), "the same by x32");
                assert_eq!(call(libc::SYS_getpid, 0), None);
            });
            assert_eq!(call(libc::SYS_getppid, 0), None);
        }
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod system {
    use super::{Refused, io};

    /// Refuses nothing here.
    #[derive(Debug, Clone)]
    pub struct Filter(());

    impl Filter {
        /// Makes one that refuses nothing.
        pub fn new(_: impl IntoIterator<Item = (libc::c_long, Refused)>) -> io::Result<Self> {
            Ok(Self(()))
        }

        /// Does nothing.
        pub fn put_on(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// There are no filters.
    pub fn filters_calls() -> bool {
        false
    }
}
