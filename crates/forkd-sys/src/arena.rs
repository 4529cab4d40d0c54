//! Memory that a forked child has to itself.
//!
//! A heap that is shared with a parent is dear to use: each page of it that malloc(3) looks for room in is copied, and
//! what is free lies scattered. A child that calls [`open`] takes what it allocates from fresh memory instead, side by
//! side, in a program that has [`Allocator`] as its global allocator.
//!
//! Invariant: memory of the arena that is in use is never handed out again. What is freed is, if it was the last that
//! was taken; so what is taken and freed in turn, as in answering a request, needs no more at the thousandth time.
//! When the arena is full, malloc(3) goes on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As much as an answer of http with the largest file that is sent with its head, and the request, take.
const SIZE: usize = 64 * 1024;

/// The number shares its page with the first bytes.
#[repr(C, align(4096))]
struct Arena {
    /// The bytes before this one are taken. 0: the arena is closed, as in the parent, whose forks would copy it.
    top: AtomicUsize,
    bytes: UnsafeCell<[MaybeUninit<u8>; SIZE]>,
}

// SAFETY: bytes are reached only by the owner of a block, and `top` lets no two blocks overlap.
unsafe impl Sync for Arena {}

static ARENA: Arena =
    Arena { top: AtomicUsize::new(0), bytes: UnsafeCell::new([const { MaybeUninit::uninit() }; SIZE]) };

/// The first block begins here, so that no top is 0.
const FIRST: usize = 16;

/// Has this process take its memory from the arena, from now on. For a child just forked.
pub fn open() {
    let _ = ARENA.top.compare_exchange(0, FIRST, Ordering::Relaxed, Ordering::Relaxed);
}

impl Arena {
    fn base(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    /// Where in the arena it is; `None` if it is elsewhere.
    fn place(&self, block: *mut u8) -> Option<usize> {
        let place = block.addr().wrapping_sub(self.base().addr());
        (place < SIZE).then_some(place)
    }

    /// Takes a block; `None` if there is no room, or the arena is closed.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            if top == 0 {
                return None;
            }
            let address = (self.base().addr() + top).checked_next_multiple_of(layout.align())?;
            let start = address - self.base().addr();
            let end = start.checked_add(layout.size()).filter(|&end| end <= SIZE)?;
            match self.top.compare_exchange_weak(top, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(self.base().wrapping_add(start)),
                Err(now) => top = now,
            }
        }
    }

    /// Moves the end of a block, if it is the last one; tells whether it was.
    fn resize(&self, place: usize, before: usize, now: usize) -> bool {
        let (end, wanted) = (place + before, place.saturating_add(now));
        wanted <= SIZE && self.top.compare_exchange(end, wanted, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Malloc(3), but for a child that has [opened](open) its arena.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: what the arena hands out is aligned, within it, and overlaps no other block (see `Arena::take`); all else is
// the system's, to which only its own blocks are given back.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise for `alloc`.
        ARENA.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match ARENA.take(layout) {
            Some(block) => {
                // SAFETY: the block has this size, and no other owner. It may have been in use before.
                unsafe { block.write_bytes(0, layout.size()) };
                block
            }
            // SAFETY: the caller's promise for `alloc_zeroed`.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match ARENA.place(block) {
            Some(place) => _ = ARENA.resize(place, layout.size(), 0),
            // SAFETY: it is not the arena's, so it is the system's.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(place) = ARENA.place(block) else {
            // SAFETY: as in `dealloc`. A block of the heap stays there.
            return unsafe { System.realloc(block, layout, size) };
        };
        if ARENA.resize(place, layout.size(), size) {
            return block;
        }
        // SAFETY: the caller promises that the size, rounded up to the alignment, is no overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the size isn't zero, by the caller's promise.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both have that many bytes, and the new one overlaps none that is in use.
            unsafe { moved.copy_from_nonoverlapping(block, layout.size().min(size)) };
            // SAFETY: it is the caller's to give.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("layout")
    }

    /// An arena of one's own: that of the process is for a child.
    fn arena() -> Box<Arena> {
        let bytes = UnsafeCell::new([const { MaybeUninit::uninit() }; SIZE]);
        Box::new(Arena { top: AtomicUsize::new(FIRST), bytes })
    }

    #[test]
    fn one_that_is_closed_has_nothing() {
        let arena = arena();
        arena.top.store(0, Ordering::Relaxed);
        assert_eq!(arena.take(layout(1, 1)), None);
    }

    #[test]
    fn blocks_are_aligned_and_apart() {
        let arena = arena();
        let mut end = 0;
        for (size, align) in [(1, 1), (8, 8), (3, 1), (64, 64), (1, 2), (4096, 4096)] {
            let block = arena.take(layout(size, align)).expect("room");
            let place = arena.place(block).expect("inside");
            assert!(block.addr().is_multiple_of(align) && place >= end, "{size} {align}");
            end = place + size;
        }
        assert_eq!(arena.take(layout(SIZE, 1)), None);
        assert_eq!(arena.take(layout(isize::MAX as usize, 1)), None);
        assert!(arena.take(layout(SIZE - end, 1)).is_some());
        assert_eq!(arena.take(layout(1, 1)), None);
    }

    #[test]
    fn only_the_last_block_is_resized_or_used_again() {
        let arena = arena();
        let place = |block| arena.place(block).expect("inside");
        let [first, last] = [10, 20].map(|size| place(arena.take(layout(size, 1)).expect("room")));
        assert!(!arena.resize(first, 10, 0) && !arena.resize(first, 10, 11));
        assert!(arena.resize(last, 20, 30) && arena.resize(last, 30, 5));
        assert!(!arena.resize(last, 5, SIZE) && !arena.resize(last, 5, usize::MAX));
        assert!(arena.resize(last, 5, 0));
        assert_eq!(arena.take(layout(1, 1)).map(place), Some(last));
    }

    #[test]
    fn what_is_elsewhere_is_not_in_it() {
        let arena = arena();
        assert_eq!(arena.place((&raw mut *Box::new(1_u8)).cast()), None);
        assert_eq!(arena.place(arena.base().wrapping_add(SIZE)), None);
        assert_eq!(arena.place(arena.base().wrapping_sub(1)), None);
        assert_eq!(arena.place(arena.base()), Some(0));
    }
}
