//! When a connection without a first exchange counts.

use super::super::atomic::{AtomicU32, Ordering};
use super::super::early::Early;

/// Those of a process, and of its socket.
fn counts() -> [&'static AtomicU32; 2] {
    [(); 2].map(|()| &*Box::leak(Box::new(AtomicU32::new(0))))
}

fn read(counts: [&AtomicU32; 2]) -> [u32; 2] {
    counts.map(|count| count.load(Ordering::Relaxed))
}

#[test]
fn a_connection_counts_until_something_is_sent_or_until_its_end() {
    let [process, socket] = counts();
    let ((first, none), (second, one)) =
        (Early::begin(process, socket, false), Early::begin(process, socket, false));
    assert_eq!((none, one, read([process, socket])), (0, 1, [2, 2]));
    first.took();
    first.gives(0);
    assert_eq!(read([process, socket]), [2, 2]);
    first.gives(1);
    first.gives(1);
    assert_eq!(read([process, socket]), [1, 1]);
    drop((first, second));
    assert_eq!(read([process, socket]), [0, 0]);
}

#[test]
fn where_no_answer_is_sent_what_comes_is_the_exchange() {
    let [process, socket] = counts();
    let (early, _) = Early::begin(process, socket, true);
    assert_eq!(read([process, socket]), [1, 1]);
    early.took();
    assert_eq!(read([process, socket]), [0, 0]);
}

#[test]
fn what_a_process_leaves_is_taken_off_the_socket_s_count_and_no_more() {
    let ([process, socket], [other, _]) = (counts(), counts());
    let left = [process, process, other].map(|process| Early::begin(process, socket, false).0);
    left.into_iter().for_each(Early::leave_to_process);
    Early::abandon(process, socket);
    Early::abandon(process, socket);
    assert_eq!(read([process, socket]), [0, 1]);
    let early = Early::resume(other, socket, false);
    early.gives(1);
    assert_eq!(read([other, socket]), [0, 0]);
}

#[test]
fn nonsense_in_shared_memory_ends_at_none() {
    let [process, socket] = counts();
    let (early, _) = Early::begin(process, socket, false);
    process.store(u32::MAX, Ordering::Relaxed);
    Early::abandon(process, socket);
    drop(early);
    assert_eq!(read([process, socket]), [0, 0]);
}
