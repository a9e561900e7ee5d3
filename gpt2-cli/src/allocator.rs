//! The process's memory allocator.
//!
//! A CPU backend allocates and frees the same hundreds of megabytes at every step. The system's allocator gives large blocks
//! back to the kernel, which clears them again page by page; here mimalloc keeps what it once took. `docs/lab-notes.md` has
//! what that is worth.

use libmimalloc_sys::{mi_option_large_os_pages, mi_option_set, mi_option_t};
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};

#[global_allocator]
static ALLOCATOR: KeepPages = KeepPages;

/// Options by their places in mimalloc 3's `mimalloc.h`; the crate names only some.
const ARENA_EAGER_COMMIT: mi_option_t = 4;
const PURGE_DELAY: mi_option_t = 15;

/// Never give pages back, and ask for huge ones.
pub(crate) fn keep_pages() {
    // SAFETY: an option may be set at any time.
    unsafe {
        mi_option_set(PURGE_DELAY, -1);
        mi_option_set(mi_option_large_os_pages, 1);
        // Huge pages are asked for what is committed at once.
        mi_option_set(ARENA_EAGER_COMMIT, 1);
    }
}

/// mimalloc, but for zeroed memory: the trait's own way, which writes zeros, is kept.
struct KeepPages;

// SAFETY: every call is mimalloc's.
unsafe impl GlobalAlloc for KeepPages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one asked for here.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::hint::black_box;

    /// Pages that the kernel has had to give this thread.
    fn page_faults() -> i64 {
        // SAFETY: the structure is plain numbers, which the call fills in.
        unsafe {
            let mut usage = std::mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
            usage.ru_minflt
        }
    }

    #[test]
    fn pages_are_kept() {
        keep_pages();
        let allocate = || drop(black_box(vec![1_u8; 64 << 20]));
        allocate();
        let before = page_faults();
        for _ in 0..10 {
            allocate();
        }
        let faults = page_faults() - before;
        assert!(
            faults < 1_000,
            "{faults} page faults for {} pages",
            10 * (64 << 20) / 4096
        );
    }
}
