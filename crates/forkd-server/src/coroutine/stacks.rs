//! Stacks that are used again: a new one costs two system calls and a fault for each page.

use std::io;

use crate::sys::context::Stack;

/// The size of a coroutine's stack, in bytes, unless another is asked for. Only what is touched takes memory:
/// 4 to 12 KiB of a coroutine that waits for its client.
///
/// ```
/// use forkd_server::coroutine::{self, Builder, STACK_SIZE};
///
/// /// Needs more than there is by default.
/// fn large() -> u8 {
///     let room = std::hint::black_box([1; STACK_SIZE]);
///     room[STACK_SIZE - 1]
/// }
///
/// let last = coroutine::run(|| {
///     let handle = Builder::new().stack_size(8 * STACK_SIZE).spawn(large)?;
///     Ok::<_, std::io::Error>(handle.join().unwrap())
/// })??;
/// assert_eq!(last, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub const STACK_SIZE: usize = 256 * 1024;

/// How many are kept at most. One keeps the pages that were touched, so those of a great rush are given back.
const KEPT: usize = 256;

#[derive(Default)]
pub(super) struct Stacks(Vec<Stack>);

impl Stacks {
    /// Makes sure that one more can be taken.
    pub(super) fn reserve(&mut self) -> io::Result<()> {
        if self.0.is_empty() {
            self.0.push(Stack::new(STACK_SIZE)?);
        }
        Ok(())
    }

    /// The one that was used last, as its pages are still in the processor's cache.
    pub(super) fn take(&mut self) -> io::Result<Stack> {
        self.0.pop().map_or_else(|| Stack::new(STACK_SIZE), Ok)
    }

    pub(super) fn put_back(&mut self, stack: Stack) {
        if self.0.len() < KEPT {
            self.0.push(stack);
        }
    }
}
