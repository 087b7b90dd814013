//! The allocator: that of the system, but for the gateway, buffers of 8 KB get two pages of their own.
//!
//! Two connections have four such buffers, of which a stream that waits for its next token uses a few hundred bytes of
//! two. The system keeps its notes between them, so a page of each one is in memory. Without notes, what was never
//! written takes none: a stream holds a fifth less.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The size of a buffer.
const SIZE: usize = 8 * 1024;

/// How many buffers there are; further ones are the system's. Only those that were in use take memory.
const COUNT: usize = 16 * 1024;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator {
    start: AtomicUsize::new(usize::MAX / 2),
    buffers: Mutex::new(Buffers {
        free: std::ptr::null_mut(),
        unused: std::ptr::null_mut(),
        unused_count: 0,
    }),
};

struct Allocator {
    /// The address of the first buffer. No memory of a process has the address that it begins with.
    start: AtomicUsize,
    buffers: Mutex<Buffers>,
}

struct Buffers {
    /// The buffer that came back last.
    free: *mut FreeBuffer,
    /// Where the buffers begin that were never used, and how many there are.
    unused: *mut u8,
    unused_count: usize,
}

/// The beginning of a buffer that came back.
struct FreeBuffer {
    /// The one that came back before.
    next: *mut Self,
}

// SAFETY: memory that nobody uses may be handed out by any thread.
#[expect(unsafe_code, reason = "an address is no thread's own")]
unsafe impl Send for Buffers {}

/// Gives buffers pages of their own, from now on.
#[expect(unsafe_code, reason = "the memory gets no type")]
pub fn separate() {
    let mut buffers = ALLOCATOR.buffers();
    if !buffers.unused.is_null() {
        return;
    }
    // SAFETY: the size is not zero, and a multiple of the alignment, which is a power of two.
    let start = unsafe { System.alloc(Layout::from_size_align_unchecked(SIZE * COUNT, SIZE)) };
    if start.is_null() {
        return;
    }
    // Pages of 2 MB would be in memory as a whole.
    #[cfg(target_os = "linux")]
    // SAFETY: the memory is of this size, and keeps its contents.
    unsafe {
        nix::libc::madvise(start.cast(), SIZE * COUNT, nix::libc::MADV_NOHUGEPAGE);
    }
    (buffers.unused, buffers.unused_count) = (start, COUNT);
    ALLOCATOR.start.store(start.addr(), Ordering::Relaxed);
}

impl Allocator {
    fn buffers(&self) -> MutexGuard<'_, Buffers> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the memory is one of the buffers.
    fn has(&self, memory: *mut u8) -> bool {
        memory.addr().wrapping_sub(self.start.load(Ordering::Relaxed)) < SIZE * COUNT
    }
}

#[expect(unsafe_code, reason = "the memory gets no type")]
impl Buffers {
    /// Returns a buffer; null if there is none.
    fn take(&mut self) -> *mut u8 {
        if !self.free.is_null() {
            let buffer = self.free;
            // SAFETY: `put` has written it.
            self.free = unsafe { (*buffer).next };
            return buffer.cast();
        }
        if self.unused_count == 0 {
            return std::ptr::null_mut();
        }
        self.unused_count -= 1;
        // SAFETY: there are as many.
        unsafe { self.unused.add(self.unused_count * SIZE) }
    }

    /// Takes a buffer back.
    #[expect(clippy::cast_ptr_alignment, reason = "a buffer begins with a page")]
    fn put(&mut self, buffer: *mut u8) {
        let buffer = buffer.cast::<FreeBuffer>();
        // SAFETY: it has room for an address, and belongs to nobody else.
        unsafe { buffer.write(FreeBuffer { next: self.free }) };
        self.free = buffer;
    }
}

#[expect(unsafe_code, reason = "the interface of an allocator is unsafe")]
// SAFETY: a buffer is handed out once until it comes back. All else is the system's, to which the same promises are
// made.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() == SIZE && layout.align() <= SIZE {
            let buffer = self.buffers().take();
            if !buffer.is_null() {
                return buffer;
            }
        }
        // SAFETY: see above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if self.has(memory) {
            return self.buffers().put(memory);
        }
        // SAFETY: see above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.has(memory) {
            // SAFETY: see above.
            return unsafe { System.realloc(memory, layout, size) };
        }
        // SAFETY: the caller promises that the layout is valid; the new memory has room for what is copied, and is
        // another one.
        unsafe {
            let moved = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(memory, size.min(SIZE));
                self.buffers().put(memory);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Fills memory of this size with a byte, lets it grow and shrink, and returns whether it kept what was in it.
    fn keeps_its_bytes(size: usize, byte: u8) -> bool {
        let mut memory: Vec<u8> = Vec::with_capacity(size);
        memory.resize(size, byte);
        memory.reserve_exact(size + 1);
        memory.extend([byte; 3]);
        memory.truncate(size);
        memory.shrink_to_fit();
        memory == vec![byte; size]
    }

    #[test]
    fn buffers_of_many_threads_are_distinct() {
        separate();
        thread::scope(|scope| {
            for byte in 1..=8 {
                scope.spawn(move || {
                    for size in [8192, 8191, 4096, 16384, 100].into_iter().cycle().take(200) {
                        let held: Vec<Vec<u8>> = (0..4).map(|_| [byte; 8192].to_vec()).collect();
                        assert!(keeps_its_bytes(size, byte));
                        assert!(held.iter().all(|buffer| *buffer == [byte; 8192]));
                    }
                });
            }
        });
    }

    #[test]
    fn zeroed_memory_is_zero() {
        separate();
        for _ in 0..100 {
            drop([7_u8; 8192].to_vec());
            assert_eq!(vec![0_u8; 8192], [0; 8192]);
        }
    }

    #[test]
    fn buffers_are_whole_pages_while_there_are_some() {
        separate();
        separate();
        let buffers: Vec<Vec<u8>> = (0..=COUNT).map(|_| Vec::with_capacity(SIZE)).collect();
        let is_own = |buffer: &&Vec<u8>| ALLOCATOR.has(buffer.as_ptr().cast_mut());
        let own: Vec<usize> = buffers.iter().filter(is_own).map(|buffer| buffer.as_ptr().addr()).collect();
        assert!(own.iter().all(|place| place % SIZE == 0));
        // Other tests have some, too.
        assert!(own.len() > COUNT / 2 && own.len() < buffers.len());
    }
}
