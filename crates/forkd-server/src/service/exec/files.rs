//! The files that the kernel executes for a program: a script's interpreter (execve(2)), the loader of a program with
//! shared libraries (elf(5), ld.so(8)).
//!
//! Invariant: what can't be read or understood needs no other file. The kernel has the last word.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// So many interpreters the kernel goes through, each of which may be a script again.
const MOST: usize = 6;
/// As much of a script's first line as Linux reads, and more than a path can have.
const HEAD: usize = 256;
const LONGEST_PATH: u64 = 4096;

/// The program, and what is executed for it.
pub(super) fn files_of(program: &Path) -> Vec<PathBuf> {
    std::iter::successors(Some(program.to_owned()), |file| interpreter_of(file)).take(MOST).collect()
}

fn interpreter_of(path: &Path) -> Option<PathBuf> {
    // nothing else can be executed, and a FIFO would be waited for
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let file = File::open(path).ok()?;
    let mut head = [0; HEAD];
    let length = file.read_at(&mut head, 0).ok()?;
    let head = &head[..length];
    of_script(head).or_else(|| of_elf(&file, head))
}

fn of_script(head: &[u8]) -> Option<PathBuf> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.trim_ascii_start().split(|byte| b" \t\0".contains(byte)).next()?;
    (!word.is_empty()).then(|| OsStr::from_bytes(word).into())
}

/// The `PT_INTERP` of a program for this machine's word size and byte order.
fn of_elf(file: &File, head: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: u64 = 3;
    const CLASS: u8 = if cfg!(target_pointer_width = "64") { 2 } else { 1 };
    const ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
    let is_native = head.starts_with(b"\x7fELF") && head.get(4..6) == Some(&[CLASS, ORDER]);
    // the program header table: its offset, the size of an entry, their number
    let places: [(usize, usize); 3] = match CLASS {
        2 => [(32, 8), (54, 2), (56, 2)],
        _ => [(28, 4), (42, 2), (44, 2)],
    };
    let [table, size, count] = places.map(|place| number(head, place));
    let (table, size, count) = (table.filter(|_| is_native)?, size?, count?);
    for nth in 0..count {
        let mut entry = [0; 56];
        file.read_at(&mut entry, table.checked_add(nth * size)?).ok()?;
        if number(&entry, (0, 4)) == Some(PT_INTERP) {
            let (offset, length) = match CLASS {
                2 => (number(&entry, (8, 8))?, number(&entry, (32, 8))?),
                _ => (number(&entry, (4, 4))?, number(&entry, (16, 4))?),
            };
            let mut name = vec![0; usize::try_from(length.min(LONGEST_PATH)).ok()?];
            file.read_exact_at(&mut name, offset).ok()?;
            let name = name.split(|byte| *byte == 0).next().filter(|name| !name.is_empty())?;
            return Some(OsStr::from_bytes(name).into());
        }
    }
    None
}

/// The number in the bytes at this place.
fn number(bytes: &[u8], (at, length): (usize, usize)) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    let mut number = [0; 8];
    if cfg!(target_endian = "little") {
        number[..length].copy_from_slice(bytes);
    } else {
        number[8 - length..].copy_from_slice(bytes);
    }
    Some(u64::from_ne_bytes(number))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn interpreter(text: impl AsRef<[u8]>) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Some(interpreter_of(file.path())?.display().to_string())
    }

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        for (text, expected) in [
            ("#!/bin/sh\necho", Some("/bin/sh")),
            ("#! \t/usr/bin/env python3\n", Some("/usr/bin/env")),
            ("#!/bin/sh", Some("/bin/sh")),
            ("#!sh -e\n", Some("sh")),
            ("#!\n/bin/sh", None),
            ("#! ", None),
            ("echo\n#!/bin/sh", None),
            ("", None),
            ("#", None),
        ] {
            assert_eq!(interpreter(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_program_with_libraries_names_its_loader() {
        // cat(1) of all systems that have glibc or musl is one
        let files = files_of(&Path::new("/bin/cat").canonicalize().unwrap());
        assert!(files.len() == 2 && files[1].exists(), "{files:?}");
        assert!(files_of(&files[1]).len() == 1, "the loader needs no other");
    }

    #[test]
    fn a_script_s_interpreter_has_a_loader_of_its_own() {
        let script = tempfile::NamedTempFile::new().unwrap();
        fs::write(script.path(), "#!/bin/cat\n").unwrap();
        let files = files_of(script.path());
        assert_eq!(files[..2], [script.path().to_owned(), "/bin/cat".into()]);
        assert_eq!(files.len(), 3);
        // one that names itself is not followed for ever
        fs::write(script.path(), format!("#!{}\n", script.path().display())).unwrap();
        assert_eq!(files_of(script.path()).len(), MOST);
    }

    #[test]
    fn what_makes_no_sense_needs_nothing() {
        let program = fs::read(Path::new("/bin/cat").canonicalize().unwrap()).unwrap();
        for length in 0..2048 {
            let _ = interpreter(&program[..length]);
        }
        for at in 4..64 {
            let mut changed = program[..4096].to_vec();
            changed[at] = 0xFF;
            let _ = interpreter(changed);
        }
        assert_eq!(files_of(Path::new("/nowhere")), [Path::new("/nowhere")]);
        assert_eq!(files_of(Path::new("/")).len(), 1);
    }
}
