//! What a service manager hears, through a real socket, by a clock that is a number.

use super::*;

/// A service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    room: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let room = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(room.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, room }
    }

    fn service(&self, watchdog: Option<Duration>) -> ServiceManager {
        ServiceManager::new(connect(self.room.path().join("notify").as_os_str()).unwrap(), watchdog)
    }

    /// The datagrams that have come.
    fn heard(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let receive = || {
            let n = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
        };
        std::iter::from_fn(receive).collect()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A turn in which there is this to say.
fn turn(service: &mut ServiceManager, now: Instant, status: &str) {
    service.send_due(now, || status.to_owned());
}

#[test]
fn each_event_is_one_datagram() {
    let manager = Manager::new();
    let mut service = manager.service(None);
    let now = Instant::now();
    service.ready(now, "2 workers");
    service.reloading(now);
    // longer than 32 bits of microseconds
    service.stopping(now, Duration::from_secs(7200));
    let heard = manager.heard();
    assert_eq!(heard.len(), 3);
    assert_eq!(heard[0], "READY=1\nSTATUS=2 workers\n");
    let time = heard[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(time.trim_end().parse::<u64>().unwrap() > 0);
    assert_eq!(heard[2], "STOPPING=1\nEXTEND_TIMEOUT_USEC=7200000000\n");
}

#[test]
fn a_status_is_said_once_a_second_and_if_it_is_news() {
    let manager = Manager::new();
    let mut service = manager.service(None);
    let start = Instant::now();
    service.ready(start, "0");
    assert_eq!((manager.heard().len(), service.next_message()), (1, None));
    for (at, text, heard) in [
        (1, "1", ""),
        (999, "2", ""),
        (1000, "3", "STATUS=3\n"),
        (1500, "4", ""),
        (1600, "3", ""),
        (2000, "3", ""),
        (2999, "5", ""),
        (3000, "5", "STATUS=5\n"),
        (9000, "6", "STATUS=6\n"),
    ] {
        turn(&mut service, start + ms(at), text);
        assert_eq!(manager.heard().concat(), heard, "{at}");
    }
    assert_eq!(service.next_message(), None);
    // what was held back is said later, and then there is nothing to wait for
    turn(&mut service, start + ms(9001), "7");
    assert_eq!(service.next_message(), Some(start + ms(10_000)));
    turn(&mut service, start + ms(10_000), "7");
    assert_eq!((manager.heard().concat().as_str(), service.next_message()), ("STATUS=7\n", None));
}

#[test]
fn the_watchdog_is_fed_at_half_its_interval() {
    let manager = Manager::new();
    let mut service = manager.service(Some(ms(800)));
    let start = Instant::now();
    assert_eq!(service.next_message(), None);
    service.ready(start, "x");
    assert_eq!(service.next_message(), Some(start));
    manager.heard();
    for (at, heard) in [(0, "WATCHDOG=1\n"), (399, ""), (400, "WATCHDOG=1\n"), (900, "WATCHDOG=1\n")] {
        turn(&mut service, start + ms(at), "x");
        assert_eq!(manager.heard().concat(), heard, "{at}");
        assert!(service.next_message().unwrap() > start + ms(at));
    }
}

#[test]
fn a_busy_manager_hears_what_matters_later_and_in_order() {
    let manager = Manager::new();
    let mut service = manager.service(Some(ms(800)));
    let start = Instant::now();
    let filler = manager.service(None).socket.unwrap();
    while filler.send(b"x").is_ok() {}
    service.ready(start, "1");
    service.stopping(start, ms(1));
    turn(&mut service, start + ms(1), "2");
    assert_eq!(service.next_message(), Some(start + RETRY_AFTER));
    assert!(manager.heard().iter().all(|datagram| datagram == "x"));
    turn(&mut service, start + ms(1000), "3");
    let heard =
        ["READY=1\nSTATUS=1\n", "STOPPING=1\nEXTEND_TIMEOUT_USEC=1000\n", "WATCHDOG=1\n", "STATUS=3\n"];
    assert_eq!(manager.heard(), heard);
    assert_eq!(service.next_message(), Some(start + ms(1400)));
}

#[test]
fn while_the_manager_is_busy_there_is_nothing_to_do_but_try_again() {
    let manager = Manager::new();
    let mut service = manager.service(Some(ms(800)));
    let start = Instant::now();
    service.ready(start, "1");
    turn(&mut service, start + ms(1), "2");
    let filler = manager.service(None).socket.unwrap();
    while filler.send(b"x").is_ok() {}
    service.reloading(start + ms(2));
    // the watchdog and the status become due, and stay so
    let mut now = start + ms(2);
    for _ in 0..50 {
        let next = service.next_message().unwrap();
        assert_eq!(next, now + RETRY_AFTER);
        // a turn for another reason changes nothing
        turn(&mut service, next - ms(1), "3");
        assert_eq!(service.next_message(), Some(next));
        turn(&mut service, next, "3");
        now = next;
    }
    let before = manager.heard();
    assert!(before[2..].iter().all(|datagram| datagram == "x"), "{before:?}");
    turn(&mut service, now + RETRY_AFTER, "4");
    let heard = manager.heard();
    assert!(heard[0].starts_with("RELOADING=1\n"), "{heard:?}");
    assert_eq!(heard[1..], ["WATCHDOG=1\n", "STATUS=4\n"]);
}

#[test]
fn what_is_superseded_is_not_kept_for_a_busy_manager() {
    let manager = Manager::new();
    let mut service = manager.service(None);
    let start = Instant::now();
    let filler = manager.service(None).socket.unwrap();
    while filler.send(b"x").is_ok() {}
    service.ready(start, "0");
    for text in ["1", "2", "3"] {
        service.reloading(start);
        service.ready(start, text);
    }
    service.stopping(start, ms(4));
    service.stopping(start, ms(6));
    service.ready(start, "4");
    manager.heard();
    service.flush(start + RETRY_AFTER);
    let mut heard = manager.heard();
    assert!(heard[1].starts_with("RELOADING=1\n"), "{heard:?}");
    heard.remove(1);
    let stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=6000\n";
    assert_eq!(heard, ["READY=1\nSTATUS=0\n", stopping, "READY=1\nSTATUS=4\n"]);
    assert_eq!(service.next_message(), None);
    // the end of a reload whose beginning was heard must not get lost
    service.reloading(start + ms(1000));
    while filler.send(b"x").is_ok() {}
    service.ready(start + ms(1000), "5");
    service.reloading(start + ms(1000));
    service.reloading(start + ms(1000));
    let events: Vec<Event> = service.queue.iter().map(|(event, _)| *event).collect();
    assert_eq!(events, [Event::Ready, Event::Reloading]);
}

#[test]
fn a_manager_that_is_gone_or_never_was_is_no_trouble() {
    let manager = Manager::new();
    let (mut orphan, mut alone) = (manager.service(None), ServiceManager::default());
    drop(manager);
    let now = Instant::now();
    for service in [&mut orphan, &mut alone] {
        service.ready(now, "x");
        service.reloading(now);
        turn(service, now + ms(5000), "y");
        assert!(service.queue.is_empty());
    }
    assert!(orphan.complained && orphan.descriptor().is_some());
    assert_eq!((alone.next_message(), alone.descriptor()), (None, None));
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_socket_is_reached() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("forkd-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
    ServiceManager::new(socket, None).ready(Instant::now(), "x");
    let mut buffer = [0; 64];
    let n = manager.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"READY=1\nSTATUS=x\n");
    assert!(connect(OsStr::new("vsock:2:1234")).is_err());
}
