//! Tests that run on every backend that this build and this machine have.
//!
//! A test for a device that is not there says so and passes, unless `GPT2_REQUIRE` names its backend, as in
//! `GPT2_REQUIRE=wgpu,cuda`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they skip and what they measure"
)]

mod classifier;
mod generation;
mod golden;
mod operations;

#[allow(unused_imports, reason = "what a build with fewer backends does not need")]
use burn::backend::Autodiff;
use burn::tensor::Tensor;
#[allow(unused_imports, reason = "what a build with fewer backends does not need")]
use burn::tensor::TensorPrimitive;
use burn::tensor::backend::{AutodiffBackend, Backend};
use gpt2_model::Precision;
use gpt2_model::ops::Gpt2Backend;

/// Makes a test of `$check` for each backend. The number is the relative error that the backend may have: CUDA's products
/// of `f32` are TF32 in Burn 0.21.
macro_rules! on_every_backend {
    ($check:ident) => {
        #[cfg(feature = "ndarray")]
        #[test]
        fn ndarray() {
            $check::<burn::backend::Autodiff<burn_ndarray::NdArray>>(&Default::default(), 1e-4);
        }

        #[cfg(feature = "flex")]
        #[test]
        fn flex() {
            $check::<burn::backend::Autodiff<burn_flex::Flex>>(&Default::default(), 1e-4);
        }

        #[cfg(feature = "wgpu")]
        #[test]
        fn wgpu() {
            if crate::present("wgpu", "no Vulkan, Metal or DirectX adapter") {
                $check::<burn::backend::Autodiff<gpt2_model::ops::Wgpu>>(&Default::default(), 1e-4);
            }
        }

        #[cfg(feature = "cuda")]
        #[test]
        fn cuda() {
            if crate::present("cuda", "no CUDA device") {
                $check::<burn::backend::Autodiff<gpt2_model::ops::Cuda>>(&Default::default(), 5e-3);
            }
        }
    };
}
pub(crate) use on_every_backend;

/// Whether `backend` has a device, by the word of the command itself.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn present(backend: &str, missing: &str) -> bool {
    let devices = std::process::Command::new(gpt2())
        .arg("devices")
        .output()
        .expect("the command runs");
    let listed = String::from_utf8_lossy(&devices.stdout)
        .lines()
        .any(|line| line.starts_with(backend) && line.contains("--device"));
    let required = std::env::var("GPT2_REQUIRE").is_ok_and(|names| names.split(',').any(|name| name == backend));
    assert!(listed || !required, "GPT2_REQUIRE asks for {backend}: {missing}");
    if !listed {
        eprintln!("{missing}: nothing tested on {backend}");
    }
    listed
}

/// The command, built with these tests; `GPT2_BIN` names another place for it, on a machine that did not build it.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn gpt2() -> std::path::PathBuf {
    std::env::var_os("GPT2_BIN").map_or_else(|| env!("CARGO_BIN_EXE_gpt2").into(), Into::into)
}

/// A backend that computes in more than one precision by kernels of its own.
trait Kernels: AutodiffBackend + Gpt2Backend {
    /// Each precision, and what rounding the operands of products and the derivatives between them may cost.
    const TOLERANCES: &[(Precision, f64)];

    /// Rows that are more than one chunk of GPT-2's logits.
    const ROWS: usize;

    /// Its device, if there is one.
    fn present() -> Option<Self::Device>;

    /// `x` as an operand of a product.
    fn operand<const D: usize>(x: Tensor<Self, D>, precision: Precision) -> Tensor<Self, D>;
}

#[cfg(feature = "cuda")]
impl Kernels for Autodiff<gpt2_model::ops::Cuda> {
    const TOLERANCES: &[(Precision, f64)] = &[(Precision::F32, 1e-5), (Precision::Tf32, 3e-3), (Precision::Bf16, 2e-2)];
    const ROWS: usize = 4_200;

    fn present() -> Option<Self::Device> {
        present("cuda", "no CUDA device").then(Default::default)
    }

    fn operand<const D: usize>(x: Tensor<Self, D>, precision: Precision) -> Tensor<Self, D> {
        // Burn's casts take the type that stands for TF32 for `f32`.
        let mut operand = x.cast(precision.operands()).into_primitive().tensor();
        operand.primitive.dtype = precision.operands().into();
        Tensor::from_primitive(TensorPrimitive::Float(operand))
    }
}

#[cfg(feature = "wgpu")]
impl Kernels for Autodiff<gpt2_model::ops::Wgpu> {
    const TOLERANCES: &[(Precision, f64)] = &[(Precision::F32, 1e-5)];
    const ROWS: usize = 600;

    fn present() -> Option<Self::Device> {
        present("wgpu", "no Vulkan, Metal or DirectX adapter").then(Default::default)
    }

    fn operand<const D: usize>(x: Tensor<Self, D>, _precision: Precision) -> Tensor<Self, D> {
        x
    }
}

/// On a processor without the tile unit, the references.
#[cfg(feature = "flex")]
impl Kernels for Autodiff<burn_flex::Flex> {
    const TOLERANCES: &[(Precision, f64)] = &[(Precision::F32, 1e-5), (Precision::Bf16, 2e-2)];
    const ROWS: usize = 600;

    fn present() -> Option<Self::Device> {
        Some(burn_flex::FlexDevice)
    }

    fn operand<const D: usize>(x: Tensor<Self, D>, precision: Precision) -> Tensor<Self, D> {
        x.cast(precision.operands())
    }
}

/// Makes a test of each `$check` for each backend with kernels of its own.
macro_rules! with_kernels {
    ($($check:ident),+) => {
        #[cfg(feature = "cuda")]
        mod cuda {
            $(#[test] fn $check() { super::$check::<burn::backend::Autodiff<gpt2_model::ops::Cuda>>(); })+
        }

        #[cfg(feature = "wgpu")]
        mod wgpu {
            $(#[test] fn $check() { super::$check::<burn::backend::Autodiff<gpt2_model::ops::Wgpu>>(); })+
        }

        #[cfg(feature = "flex")]
        mod flex {
            $(#[test] fn $check() { super::$check::<burn::backend::Autodiff<burn_flex::Flex>>(); })+
        }
    };
}
pub(crate) use with_kernels;

/// The elements, on the host.
fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let data = tensor.into_data().convert_dtype(burn::tensor::DType::F32);
    data.into_vec().unwrap()
}

/// ‖found − expected‖ / ‖expected‖. A NaN or another length is infinitely wrong.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let error = difference / norm(&mut expected.iter().map(|value| f64::from(*value))).max(f64::MIN_POSITIVE);
    if error.is_nan() { f64::INFINITY } else { error }
}
