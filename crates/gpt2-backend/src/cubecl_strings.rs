//! CubeCL's strings: what it calls the threads of a device and says in a panic, which nothing else tells apart.

/// How CubeCL names the threads of a device.
const DEVICE_THREADS: [&str; 2] = ["DSD-", "DSU-"];

/// CubeCL's words when a device has no memory left, which it panics with.
const OUT_OF_MEMORY: &str = "can't allocate buffer of size";

/// Whether the thread of this name is a device's: CubeCL catches a panic there, and goes on with tensors that were never
/// written.
pub fn is_device_thread(name: &str) -> bool {
    DEVICE_THREADS.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a panic with this message says that a device has no memory left.
pub fn is_out_of_memory(panic_message: &str) -> bool {
    panic_message.contains(OUT_OF_MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strings_of_cubecl_0_10() {
        assert!(is_device_thread("DSD-0-0") && is_device_thread("DSU-1") && !is_device_thread("main"));
        assert!(
            is_out_of_memory("error: can't allocate buffer of size 12") && !is_out_of_memory("index out of bounds")
        );
    }
}
