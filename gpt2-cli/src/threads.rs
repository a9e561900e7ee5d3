//! How many CPU threads there are. Everything that computes on several does so in rayon's pool; the BLAS has none of its own.

use crate::error::CliError;

/// Sets the number of threads. To be called once, before any tensor.
///
/// # Errors
/// [`CliError::Threads`] if the pool cannot be started.
pub(crate) fn set(threads: usize) -> Result<(), CliError> {
    #[cfg(feature = "ndarray")]
    blas::choose_kernels();
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|source| CliError::Threads { threads, source })
}

#[cfg(feature = "ndarray")]
mod blas {
    /// BLIS's number for its AVX-512 kernels (`arch_t` in `bli_type_defs.h`), and the variable that chooses by number.
    const SKX: &str = "0";
    const ARCH: &str = "BLIS_ARCH_TYPE";

    /// BLIS takes its AVX-512 kernels only where it knows the processor's name, which a virtual machine hides. Those with
    /// AVX512-FP16 all have the two units that make the kernels worth it.
    pub(super) fn choose_kernels() {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512fp16") && std::env::var_os(ARCH).is_none() {
            // SAFETY: called once, before this program starts threads that read the environment.
            unsafe { std::env::set_var(ARCH, SKX) };
        }
    }
}
