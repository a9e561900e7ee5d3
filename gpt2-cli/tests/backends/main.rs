//! Tests that run on every backend that this build and this machine have.
//!
//! A test for a device that is not there says so and passes, unless `GPT2_REQUIRE` names its backend, as in
//! `GPT2_REQUIRE=wgpu,cuda`.

mod classifier;
mod generation;
mod golden;
mod operations;

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
                $check::<burn::backend::Autodiff<burn_wgpu::Wgpu<f32, i32, u32>>>(&Default::default(), 1e-4);
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

/// `x` as an operand of the kernels' products. Burn's casts take the type that stands for TF32 for `f32`.
#[cfg(feature = "cuda")]
fn operand<const D: usize>(
    x: burn::tensor::Tensor<burn::backend::Autodiff<gpt2_model::ops::Cuda>, D>,
    precision: gpt2_model::Precision,
) -> burn::tensor::Tensor<burn::backend::Autodiff<gpt2_model::ops::Cuda>, D> {
    let mut operand = x.cast(precision.operands()).into_primitive().tensor();
    operand.primitive.dtype = precision.operands().into();
    burn::tensor::Tensor::from_primitive(burn::tensor::TensorPrimitive::Float(operand))
}

/// The elements, on the host.
fn floats<B: burn::tensor::backend::Backend, const D: usize>(tensor: burn::tensor::Tensor<B, D>) -> Vec<f32> {
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
