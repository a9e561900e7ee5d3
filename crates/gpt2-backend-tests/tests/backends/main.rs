//! Tests that run on every backend that this build and this machine have.
//!
//! A test for a backend that is not there says so and passes, unless `GPT2_REQUIRE` names it, as in
//! `GPT2_REQUIRE=wgpu,cuda`. All files that the tests read are in the binary, so that it can be run alone on another machine.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they skip and what they measure"
)]

mod capabilities;
mod classifier;
mod decode;
mod evaluation;
mod generation;
mod golden;
mod operations;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorPrimitive};
use gpt2_backend::{BackendKind, Chosen, TrainingJob, dispatch};
use gpt2_model::Precision;
use gpt2_model::ops::Gpt2Backend;

/// Makes a test of `$check` for each backend. Its number is the relative error that the backend may have.
macro_rules! on_every_backend {
    ($check:ident) => {
        struct Check(f64);

        impl gpt2_backend::TrainingJob for Check {
            type Output = ();

            fn run<B>(self, device: B::Device)
            where
                B: burn::tensor::backend::AutodiffBackend + gpt2_model::ops::Gpt2Backend,
                B::InnerBackend: gpt2_model::ops::training::TrainingBackend,
            {
                $check::<B>(&device, self.0);
            }
        }

        #[test]
        fn ndarray() {
            crate::run(gpt2_backend::BackendKind::Ndarray, Check(1e-4));
        }

        #[test]
        fn flex() {
            crate::run(gpt2_backend::BackendKind::Flex, Check(1e-4));
        }

        #[test]
        fn wgpu() {
            crate::run(gpt2_backend::BackendKind::Wgpu, Check(1e-4));
        }

        /// CUDA's products of `f32` are TF32 in Burn 0.21.
        #[test]
        fn cuda() {
            crate::run(gpt2_backend::BackendKind::Cuda, Check(5e-3));
        }
    };
}
pub(crate) use on_every_backend;

/// Makes a test of each `$check` for each backend with kernels of its own.
macro_rules! with_kernels {
    ($($check:ident),+) => {
        mod cuda {
            $(#[test] fn $check() { super::$check(gpt2_backend::BackendKind::Cuda); })+
        }

        mod wgpu {
            $(#[test] fn $check() { super::$check(gpt2_backend::BackendKind::Wgpu); })+
        }

        mod flex {
            $(#[test] fn $check() { super::$check(gpt2_backend::BackendKind::Flex); })+
        }
    };
}
pub(crate) use with_kernels;

/// Makes a function of `$check` that runs it on a backend.
macro_rules! job {
    ($name:ident, $check:ident) => {
        fn $name(kind: gpt2_backend::BackendKind) {
            struct Job(crate::Kernels);

            impl gpt2_backend::TrainingJob for Job {
                type Output = ();

                fn run<B>(self, device: B::Device)
                where
                    B: burn::tensor::backend::AutodiffBackend + gpt2_model::ops::Gpt2Backend,
                    B::InnerBackend: gpt2_model::ops::training::TrainingBackend,
                {
                    $check::<B>(&device, self.0);
                }
            }

            crate::run(kind, Job(crate::Kernels::of(kind)));
        }
    };
}
pub(crate) use job;

/// Runs `job` on a backend, if it is there.
fn run(kind: BackendKind, job: impl TrainingJob<Output = ()>) {
    run_chosen(kind, |_| job);
}

/// Runs the job made for a backend's first device, if it is there.
fn run_chosen<J: TrainingJob<Output = ()>>(kind: BackendKind, job: impl FnOnce(Chosen) -> J) {
    match Chosen::decide(kind.into(), 0) {
        Ok(chosen) => dispatch(&chosen.clone(), job(chosen)).expect("the device was there just now"),
        Err(error) => {
            let required =
                std::env::var("GPT2_REQUIRE").is_ok_and(|names| names.split(',').any(|name| name == kind.as_str()));
            assert!(!required, "GPT2_REQUIRE asks for {kind}: {error}");
            eprintln!("{error}: nothing tested");
        }
    }
}

/// Whether the backend's first device is there and has units for products of `bf16`.
fn computes_in_bf16(kind: BackendKind) -> bool {
    Chosen::decide(kind.into(), 0).is_ok_and(|chosen| chosen.check_precision(Precision::Bf16).is_ok())
}

/// What a backend computes by kernels of its own.
#[derive(Debug, Clone, Copy)]
struct Kernels {
    /// Each precision, and what rounding the operands of products and the gradients between them may cost.
    precisions: &'static [(Precision, f64)],
    /// Rows that are more than one chunk of GPT-2's logits.
    rows: usize,
}

impl Kernels {
    fn of(kind: BackendKind) -> Self {
        let (precisions, rows): (&[_], _) = match kind {
            BackendKind::Cuda => (
                &[(Precision::Tf32, 3e-3), (Precision::F32, 1e-5), (Precision::Bf16, 2e-2)],
                4_200,
            ),
            BackendKind::Wgpu if computes_in_bf16(kind) => (&[(Precision::F32, 1e-5), (Precision::Bf16, 2e-2)], 600),
            BackendKind::Wgpu | BackendKind::Ndarray => (&[(Precision::F32, 1e-5)], 600),
            // In `bf16` on a processor without the tile unit, the references.
            BackendKind::Flex => (&[(Precision::F32, 1e-5), (Precision::Bf16, 2e-2)], 600),
        };
        Self { precisions, rows }
    }

    /// Those that have attention of heads of `head_size` channels: TF32, which comes first, has it of 64 alone.
    fn for_heads_of(self, head_size: usize) -> Self {
        let precisions = match self.precisions {
            [(Precision::Tf32, _), others @ ..] if head_size != 64 => others,
            all => all,
        };
        Self { precisions, ..self }
    }
}

/// `x` as an operand of a product.
fn operand<B: Gpt2Backend, const D: usize>(x: Tensor<B, D>, precision: Precision) -> Tensor<B, D> {
    let rounded = B::round_weights(x.into_primitive().tensor(), B::operand_type(precision));
    Tensor::from_primitive(TensorPrimitive::Float(rounded))
}

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
