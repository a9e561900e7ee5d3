//! The process's memory allocator.
//!
//! A CPU backend allocates and frees the same hundreds of megabytes at every step. The system's allocator gives large blocks
//! back to the kernel, which clears them again page by page; here jemalloc keeps what it once took. `docs/lab-notes.md` has
//! what that is worth.
#![cfg(not(target_env = "msvc"))]

use std::alloc::{GlobalAlloc, Layout};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: KeepPages = KeepPages;

/// Never give pages back; treat large blocks like all others, where by default those over 8 MiB are given back at once; and
/// ask for huge pages.
// SAFETY: jemalloc reads this symbol, a string that ends with a zero, when it starts.
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONFIGURATION: Option<&std::ffi::c_char> = {
    let text = c"dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0,thp:always";
    // SAFETY: the string is static and never written to.
    Some(unsafe { &*text.as_ptr() })
};

/// jemalloc, but for zeroed memory: it zeroes a large block by giving its pages back to the kernel. The trait's own way, which
/// is kept here, writes zeros.
struct KeepPages;

// SAFETY: every call is jemalloc's.
unsafe impl GlobalAlloc for KeepPages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one asked for here.
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { Jemalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { Jemalloc.realloc(block, layout, size) }
    }
}
