//! The operations of a training step by name, and who is told when each begins and ends.
//!
//! A profile observes the thread that trains. Without an observer a span costs the look at a flag of the thread.

use crate::config::Gpt2Config;
use crate::precision::Precision;
use std::cell::{Cell, RefCell};
use std::fmt;

/// What an operation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerKind {
    /// Attention, its two products among it.
    Attention,
    /// The feed-forward half of a block.
    FeedForward,
    /// The LayerNorms.
    LayerNorm,
    /// Token and position embedding.
    Embedding,
    /// Classifier and loss.
    HeadAndLoss,
    /// What comes behind the gradients: their sum, norm and clip, and AdamW.
    Optimizer,
    /// Waiting for a micro-batch, and its way to the device.
    Data,
}

impl LayerKind {
    /// Every kind, in the order of a table.
    pub const ALL: [Self; 7] = [
        Self::Attention,
        Self::FeedForward,
        Self::LayerNorm,
        Self::Embedding,
        Self::HeadAndLoss,
        Self::Optimizer,
        Self::Data,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::FeedForward => "feed-forward",
            Self::LayerNorm => "LayerNorm",
            Self::Embedding => "embedding",
            Self::HeadAndLoss => "head and loss",
            Self::Optimizer => "optimizer",
            Self::Data => "data",
        }
    }
}

/// Where in a step an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    /// The forward pass, data and loss among it.
    Forward,
    /// The backward pass, with what it recomputes.
    Backward,
    /// The update of the weights.
    Update,
}

impl Pass {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Update => "update",
        }
    }
}

/// An operation of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A micro-batch is waited for and brought to the device.
    Batch,
    /// The sum of a token's and its position's vector.
    Embed,
    /// A LayerNorm.
    LayerNorm,
    /// Attention's two weights in the type of the products.
    AttentionWeights,
    /// Query, key and value.
    Qkv,
    /// Causal attention itself.
    Attention,
    /// Attention's second product, added to the residual stream.
    AttentionOut,
    /// The feed-forward half's two weights in the type of the products.
    FeedForwardWeights,
    /// The feed-forward half's first product, and GELU.
    FeedIn,
    /// Its second product, added to the residual stream.
    FeedOut,
    /// The whole feed-forward half, which is differentiated at once.
    FeedForward,
    /// Classifier and loss with both derivatives.
    Classifier,
    /// The classifier's derivatives times the loss's.
    ClassifierScale,
    /// The gradients of micro-steps added up.
    GradientSum,
    /// The gradients' global norm.
    GradientNorm,
    /// What the gradients are multiplied by.
    Clip,
    /// AdamW.
    AdamW,
    /// The numbers of a step on their way to the host.
    Readback,
}

impl Operation {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Embed => "embedding",
            Self::LayerNorm => "LayerNorm",
            Self::AttentionWeights => "attention weights rounded",
            Self::Qkv => "qkv",
            Self::Attention => "attention",
            Self::AttentionOut => "attention out",
            Self::FeedForwardWeights => "feed-forward weights rounded",
            Self::FeedIn => "feed-forward in, GELU",
            Self::FeedOut => "feed-forward out",
            Self::FeedForward => "feed-forward",
            Self::Classifier => "classifier, loss and derivatives",
            Self::ClassifierScale => "classifier's derivatives scaled",
            Self::GradientSum => "gradient sum",
            Self::GradientNorm => "gradient norm",
            Self::Clip => "clip",
            Self::AdamW => "AdamW",
            Self::Readback => "readback",
        }
    }

    /// What it belongs to.
    pub const fn kind(self) -> LayerKind {
        match self {
            Self::Batch => LayerKind::Data,
            Self::Embed => LayerKind::Embedding,
            Self::LayerNorm => LayerKind::LayerNorm,
            Self::AttentionWeights | Self::Qkv | Self::Attention | Self::AttentionOut => LayerKind::Attention,
            Self::FeedForwardWeights | Self::FeedIn | Self::FeedOut | Self::FeedForward => LayerKind::FeedForward,
            Self::Classifier | Self::ClassifierScale => LayerKind::HeadAndLoss,
            Self::GradientSum | Self::GradientNorm | Self::Clip | Self::AdamW | Self::Readback => LayerKind::Optimizer,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An operation in its pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The operation.
    pub operation: Operation,
    /// The pass.
    pub pass: Pass,
}

/// What one operation takes at least.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Floating-point operations of its matrix products.
    pub flop: f64,
    /// Bytes that it must at least read and write.
    pub bytes: f64,
}

impl Span {
    /// What it costs in a micro-step of `batch` sequences of `seq` tokens. Of attention's `[T, T]` one half is counted,
    /// since no position attends to a later one. Nothing is
    /// known of those that are no work of their own, such as the readback.
    pub fn cost(self, model: &Gpt2Config, batch: usize, seq: usize, precision: Precision) -> Cost {
        let size = match precision {
            Precision::F32 | Precision::Tf32 => 4.0,
            Precision::Bf16 => 2.0,
        };
        let (c, rows) = (model.n_embd as f64, (batch * seq) as f64);
        let (vocab, stream) = (model.padded_vocab_size() as f64, rows * c);
        let parameters = crate::cost::padded_parameters(model) as f64;
        let is_backward = self.pass == Pass::Backward;
        let memory = |bytes: f64| Cost { flop: 0.0, bytes };
        // A product of [rows, inner] and [inner, outer]; backward two, each of two of the three matrices into the third.
        let product = |inner: f64, outer: f64, written: f64| {
            let flop = 2.0 * rows * inner * outer;
            let read = size * (rows * inner + inner * outer);
            if is_backward {
                Cost {
                    flop: 2.0 * flop,
                    bytes: 2.0 * (read + size * rows * outer),
                }
            } else {
                Cost {
                    flop,
                    bytes: read + written * rows * outer,
                }
            }
        };
        // Onto the residual stream, which is read and written in f32.
        let onto = 8.0;
        match self.operation {
            // A backend need not multiply by 1.
            Operation::Batch | Operation::Readback | Operation::Clip | Operation::ClassifierScale => Cost::default(),
            Operation::Embed if is_backward => memory(16.0 * stream),
            Operation::Embed => memory(8.0 * stream),
            Operation::LayerNorm if is_backward => memory((12.0 + size) * stream),
            Operation::LayerNorm => memory((4.0 + size) * stream),
            Operation::AttentionWeights => memory((4.0 + size) * 4.0 * c * c),
            Operation::FeedForwardWeights => memory((4.0 + size) * 8.0 * c * c),
            Operation::Qkv => product(c, 3.0 * c, size),
            Operation::AttentionOut => product(c, c, onto),
            Operation::FeedIn => product(c, 4.0 * c, 2.0 * size),
            Operation::FeedOut => product(4.0 * c, c, onto),
            // Forward 2 products, backward 4, each of three matrices of which one is four times as wide.
            Operation::FeedForward => Cost {
                flop: 32.0 * rows * c * c,
                bytes: 4.0 * size * (4.0 * c * c + 5.0 * stream),
            },
            // Forward two products, backward five.
            Operation::Attention => {
                let one = stream * seq as f64;
                Cost {
                    flop: if is_backward { 5.0 * one } else { 2.0 * one },
                    bytes: if is_backward { 8.0 } else { 4.0 } * size * stream,
                }
            }
            // Logits and both derivatives.
            Operation::Classifier => Cost {
                flop: 6.0 * rows * vocab * c,
                bytes: 4.0 * (3.0 * vocab * c + 2.0 * stream),
            },
            Operation::GradientSum => memory(12.0 * parameters),
            Operation::GradientNorm => memory(4.0 * parameters),
            // Parameter and both moments in and out, the gradient in.
            Operation::AdamW => memory(28.0 * parameters),
        }
    }
}

/// Is told of the spans of a thread.
pub trait SpanObserver {
    /// A span begins.
    fn begins(&mut self, span: Span);

    /// The newest span ends. On a device that computes behind the host, what it queued may not be computed yet.
    fn ends(&mut self);
}

thread_local! {
    static IS_OBSERVED: Cell<bool> = const { Cell::new(false) };
    static OBSERVER: RefCell<Option<Box<dyn SpanObserver>>> = const { RefCell::new(None) };
}

/// Lets `observer` be told of this thread's spans from now on, in place of whoever was.
pub fn observe(observer: Option<Box<dyn SpanObserver>>) {
    IS_OBSERVED.set(observer.is_some());
    OBSERVER.replace(observer);
}

/// Does `work`, a span.
pub fn span<R>(operation: Operation, pass: Pass, work: impl FnOnce() -> R) -> R {
    if !IS_OBSERVED.get() {
        return work();
    }
    OBSERVER.with_borrow_mut(|observer| {
        if let Some(observer) = observer {
            observer.begins(Span { operation, pass });
        }
    });
    let result = work();
    OBSERVER.with_borrow_mut(|observer| {
        if let Some(observer) = observer {
            observer.ends();
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[derive(Default, Clone)]
    struct Seen(Rc<RefCell<Vec<String>>>);

    impl SpanObserver for Seen {
        fn begins(&mut self, span: Span) {
            self.0
                .borrow_mut()
                .push(format!("{}, {}", span.operation, span.pass.name()));
        }

        fn ends(&mut self) {
            self.0.borrow_mut().push("ends".to_owned());
        }
    }

    #[test]
    fn an_observer_sees_the_spans_of_its_thread_until_it_is_taken_away() {
        let seen = Seen::default();
        assert_eq!(span(Operation::Embed, Pass::Forward, || 1), 1);
        observe(Some(Box::new(seen.clone())));
        span(Operation::Qkv, Pass::Backward, || {
            seen.0.borrow_mut().push("works".to_owned());
        });
        std::thread::spawn(|| span(Operation::Embed, Pass::Forward, || ()))
            .join()
            .unwrap();
        observe(None);
        span(Operation::Embed, Pass::Forward, || ());
        assert_eq!(*seen.0.borrow(), ["qkv, backward", "works", "ends"]);
    }

    #[test]
    fn the_operations_of_a_step_are_the_models_flop() {
        let model = Gpt2Config::preset("gpt2").unwrap();
        let (batch, seq) = (4, 1024);
        let flop = |operation, pass| Span { operation, pass }.cost(&model, batch, seq, Precision::Bf16).flop;
        let [forward, backward] = [Pass::Forward, Pass::Backward];
        let layer: f64 = [
            (Operation::Qkv, forward),
            (Operation::AttentionOut, forward),
            (Operation::FeedIn, forward),
            (Operation::FeedOut, forward),
            (Operation::Qkv, backward),
            (Operation::AttentionOut, backward),
            (Operation::FeedForward, backward),
        ]
        .map(|(operation, pass)| flop(operation, pass))
        .iter()
        .sum();
        let tokens = (batch * seq) as f64;
        let (c, layers) = (model.n_embd as f64, model.n_layer as f64);
        // 6 a weight and token.
        assert!((layer / (6.0 * tokens * 12.0 * c * c) - 1.0).abs() < 1e-12);
        let classifier = 6.0 * tokens * model.padded_vocab_size() as f64 * c;
        assert!((flop(Operation::Classifier, forward) / classifier - 1.0).abs() < 1e-12);
        // The whole count of `flops_per_token` takes attention whole, and 6 of its products; here half of 7.
        let attention = layers * (flop(Operation::Attention, forward) + flop(Operation::Attention, backward));
        let whole = 12.0 * layers * c * seq as f64 * tokens;
        assert!((attention / (whole * 7.0 / 12.0) - 1.0).abs() < 1e-12);
    }
}
