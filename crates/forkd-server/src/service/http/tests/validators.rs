//! What the client has already, of files that change.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn what_the_client_has_is_not_sent_again() {
    let (_dir, http) = site();
    let first = get(&http, "/index.html", "");
    let tag = field(&first, "ETag").expect("a tag");
    let answer = get(&http, "/index.html", &format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}\r\n"));
    assert_eq!((status(&answer), content(&answer), field(&answer, "ETag")), (304, "", Some(tag)));
    // what else there is of the file the client knows
    for name in ["Content-Length", "Content-Type", "Last-Modified", "Accept-Ranges"] {
        assert_eq!(field(&answer, name), None);
    }
    let two = |name: &str, tag: &str| format!("{name}: \"x\"\r\n{name}: {tag}\r\n");
    assert_eq!(status(&get(&http, "/digits.txt", "If-Match: \"x\"\r\n")), 412);
    assert_eq!(status(&get(&http, "/digits.txt", &two("If-Match", "\"y\""))), 412);
    assert_eq!(status(&get(&http, "/index.html", &two("If-Match", tag))), 200);
}

#[test]
fn a_date_that_was_written_with_the_content_is_given() {
    let (dir, http) = site();
    write_within_a_second(&dir.path().join("root/new"), "new");
    let answer = get(&http, "/new", "");
    let date = field(&answer, "Last-Modified").expect("a date");
    assert_eq!(status(&get(&http, "/new", &format!("If-Modified-Since: {date}\r\n"))), 304);
    assert_eq!(status(&get(&http, "/new", &format!("If-Unmodified-Since: {date}\r\n"))), 200);
    // it may have changed twice in that second
    let range = format!("Range: bytes=0-0\r\nIf-Range: {date}\r\n");
    assert_eq!(status(&get(&http, "/new", &range)), 200);
    let twice = format!("If-Modified-Since: {date}\r\nIf-Modified-Since: {date}\r\n");
    assert_eq!(status(&get(&http, "/new", &twice)), 200);
}

#[test]
fn parts() {
    let (dir, http) = site();
    let first = get(&http, "/digits.txt", "");
    let tag = field(&first, "ETag").expect("a tag");
    let answer = get(&http, "/digits.txt", &format!("Range: bytes=2-4\r\nIf-Range: {tag}\r\n"));
    assert_eq!((status(&answer), content(&answer)), (206, "234"));
    assert_eq!((field(&answer, "Content-Range"), field(&answer, "ETag")), (Some("bytes 2-4/10"), Some(tag)));
    let weak = format!("Range: bytes=2-4\r\nIf-Range: W/{tag}\r\n");
    assert_eq!(status(&get(&http, "/digits.txt", &weak)), 200);
    let answer = get(&http, "/large.bin", "Range: bytes=-30000\r\n");
    assert_eq!((status(&answer), content(&answer)), (206, &*"large ".repeat(5_000)));
    let answer = get(&http, "/digits.txt", "Range: bytes=10-\r\n");
    assert_eq!((status(&answer), field(&answer, "Content-Range")), (416, Some("bytes */10")));
    fs::write(dir.path().join("root/empty"), "").expect("file");
    let answer = get(&http, "/empty", "Range: bytes=-5\r\n");
    assert_eq!((status(&answer), field(&answer, "Content-Length")), (200, Some("0")));
    let answer = get(&http, "/empty", "Range: bytes=0-\r\n");
    assert_eq!((status(&answer), field(&answer, "Content-Range")), (416, Some("bytes */0")));
}

#[test]
fn a_date_is_never_one_of_the_future() {
    let (dir, http) = site();
    let file = fs::File::create(dir.path().join("root/odd")).expect("file");
    file.set_modified(SystemTime::now() + Duration::from_secs(3600)).expect("time");
    let text = String::from_utf8(talk(&http, [&b"GET /odd HTTP/1.0\r\n\r\n"[..]]).bytes).expect("text");
    let [date, modified] = ["Date", "Last-Modified"]
        .map(|name| date::read(field(&text, name).expect("a date").as_bytes(), 0).expect("a date"));
    assert!(modified <= date, "{text}");
    let since = format!("If-Modified-Since: {}\r\n", field(&text, "Last-Modified").expect("a date"));
    assert_eq!(status(&get(&http, "/odd", &since)), 200, "it is still not settled");
    file.set_modified(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).expect("time");
    assert_eq!(status(&get(&http, "/odd", "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n")), 200);
}

/// Writes a file, but not in the first hundredth of a second: such a one is told with the date of the second before,
/// as long as that hundredth lasts, for it might still be changed.
fn write_within_a_second(path: &Path, content: &str) {
    loop {
        fs::write(path, content).expect("file");
        let modified = fs::metadata(path).and_then(|file| file.modified()).expect("time");
        let since_1970 = modified.duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
        if since_1970.subsec_millis() >= 10 {
            return;
        }
    }
}

/// Writes a file as a build does that wants to be reproducible.
fn write_normalised(path: &Path, content: &str, seconds: u64) {
    fs::write(path, content).expect("file");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options().append(true).open(path).expect("file").set_modified(time).expect("time");
}

/// Another content under the same name, of the same size and with the same time: no validator of the old one holds.
#[test]
fn no_validator_outlives_the_content() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("a link leads elsewhere", |root| {
            symlink("two", root.join("next")).expect("link");
            fs::rename(root.join("next"), root.join("current")).expect("rename");
        }),
        ("another file has the name", |root| {
            fs::rename(root.join("two/a"), root.join("one/a")).expect("rename")
        }),
        ("another directory has the name", |root| {
            fs::rename(root.join("one"), root.join("old")).expect("rename");
            fs::rename(root.join("two"), root.join("one")).expect("rename");
        }),
        ("it was written anew, and its time put back", |root| {
            write_normalised(&root.join("one/a"), "new", 1)
        }),
        ("the root is another one", |root| {
            fs::rename(root, root.with_file_name("old")).expect("rename");
            fs::create_dir_all(root.join("current")).expect("directory");
            write_normalised(&root.join("current/a"), "new", 1);
        }),
    ];
    for (what, change) in changes {
        let dir = tempfile::tempdir().expect("directory");
        let root = dir.path().join("root");
        for (release, content) in [("one", "old"), ("two", "new")] {
            fs::create_dir_all(root.join(release)).expect("directory");
            write_normalised(&root.join(release).join("a"), content, 1);
        }
        symlink("one", root.join("current")).expect("link");
        let http = Http::new().root(&root).expect("root");
        settle(&root.join("one/a"));
        let old = get(&http, "/current/a", "");
        assert_eq!(content(&old), "old");
        let (tag, date) =
            (field(&old, "ETag").expect("a tag"), field(&old, "Last-Modified").expect("a date"));
        change(&root);
        for fields in [
            format!("If-None-Match: {tag}\r\n"),
            format!("If-Modified-Since: {date}\r\n"),
            format!("Range: bytes=1-\r\nIf-Range: {tag}\r\n"),
            format!("Range: bytes=1-\r\nIf-Range: {date}\r\n"),
        ] {
            let answer = get(&http, "/current/a", &fields);
            assert_eq!((status(&answer), content(&answer)), (200, "new"), "{what}: {fields}");
        }
        for fields in [format!("If-Match: {tag}\r\n"), format!("If-Unmodified-Since: {date}\r\n")] {
            assert_eq!(status(&get(&http, "/current/a", &fields)), 412, "{what}: {fields}");
        }
    }
}

#[test]
fn what_is_made_for_a_request_is_there_and_has_no_validator() {
    let (_dir, http) = site();
    for (fields, expected) in [
        ("If-None-Match: *\r\n", 304),
        ("If-None-Match: \"a\"\r\n", 200),
        ("If-Match: *\r\n", 200),
        ("If-Match: \"a\"\r\n", 412),
        ("If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n", 200),
        ("Range: bytes=0-0\r\n", 200),
    ] {
        assert_eq!(status(&get(&http, "/hello", fields)), expected, "{fields}");
        assert_eq!(status(&get(&http, "/nothing", fields)), 404, "{fields}");
    }
}
