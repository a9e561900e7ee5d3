//! What a plan says of its kernels is what the operations do.

use crate::operand;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use gpt2_backend::{BackendKind, Chosen, TrainingJob};
use gpt2_model::Precision;
use gpt2_model::capabilities::Implementation;
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::TrainingBackend;
use gpt2_train::config::RunConfig;
use gpt2_train::plan::{DataSummary, Environment, RunPlan};

/// Width and heads: heads of 64 channels and of 40, 32, 128 and 256; widths that are multiples of 64, 8, 4 and 1.
const SHAPES: [[usize; 2]; 10] = [
    [128, 2],
    [80, 2],
    [128, 4],
    [256, 2],
    [256, 1],
    [96, 3],
    [104, 2],
    [100, 5],
    [60, 2],
    [63, 9],
];

/// The plan of a model of this shape, if there is one in this precision.
fn plan(backend: BackendKind, [n_embd, n_head]: [usize; 2], precision: Precision) -> Option<RunPlan> {
    let environment = Environment {
        data: DataSummary {
            name: "test".to_owned(),
            train_tokens: 1 << 20,
            val_tokens: 1 << 20,
            floor: None,
        },
        default_run: "runs/test".into(),
        auto_backend: backend,
        cores: 1,
        device: 0,
        memory_bytes: None,
        memory_is_of_host: false,
        init_model: None,
    };
    let config = RunConfig {
        n_embd: Some(n_embd),
        n_head: Some(n_head),
        precision: Some(precision),
        ..RunConfig::default()
    };
    RunPlan::resolve(&config, &environment).ok()
}

struct Agreement(Chosen);

impl TrainingJob for Agreement {
    type Output = ();

    fn run<B>(self, device: B::Device)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let mut compared = 0;
        for shape in SHAPES {
            for precision in Precision::ALL {
                let Some(plan) = plan(self.0.backend, shape, precision) else {
                    continue;
                };
                if self.0.check_precision(precision).is_err() {
                    continue;
                }
                let can = plan.capabilities();
                let [n_embd, n_head] = shape;
                let zeros = |shape: [usize; 2]| Tensor::<B, 2>::zeros(shape, &device);
                let (stream, vector) = (zeros([8, n_embd]), zeros([1, n_embd]).squeeze_dim::<1>(0));
                let x = operand(stream.clone(), precision).into_primitive().tensor();
                let qkv = operand(zeros([8, 3 * n_embd]), precision).reshape([1, 8, 3 * n_embd]);
                let qkv = qkv.into_primitive().tensor();
                let wte = zeros([plan.model.padded_vocab_size(), n_embd])
                    .into_primitive()
                    .tensor();
                let inner = stream.clone().inner().into_primitive().tensor();
                let stream = stream.into_primitive().tensor();
                let dispatched = [
                    B::supports_matmul(&x, &wte),
                    B::supports_layer_norm(&stream, precision),
                    B::supports_attention(&qkv, n_head),
                ];
                let planned = [&can.matmul, &can.layer_norm, &can.attention].map(Implementation::is_kernel);
                assert_eq!(dispatched, planned, "{} {shape:?} {precision}", self.0.backend);
                assert_eq!(can.describe_references().is_some(), dispatched.contains(&false));

                // On GPUs only the kernel gives its statistics.
                if matches!(self.0.backend, BackendKind::Cuda | BackendKind::Wgpu) {
                    let vector = vector.inner().into_primitive().tensor();
                    let normal = B::InnerBackend::normalise_rows(inner, vector.clone(), vector, precision);
                    assert_eq!(normal.statistics.is_some(), can.layer_norm.is_kernel());
                }
                compared += 1;
            }
        }
        assert!(compared >= SHAPES.len(), "every shape in f32");
    }
}

mod the_plan_and_the_dispatch_agree {
    use super::Agreement;
    use gpt2_backend::BackendKind;

    #[test]
    fn ndarray() {
        crate::run_chosen(BackendKind::Ndarray, Agreement);
    }

    #[test]
    fn flex() {
        crate::run_chosen(BackendKind::Flex, Agreement);
    }

    #[test]
    fn wgpu() {
        crate::run_chosen(BackendKind::Wgpu, Agreement);
    }

    #[test]
    fn cuda() {
        crate::run_chosen(BackendKind::Cuda, Agreement);
    }
}
