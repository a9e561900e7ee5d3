//! GPT-2: token and position embeddings, blocks, a last LayerNorm, and a classifier tied to the token embedding.

use crate::block::Block;
use crate::computation::{Computation, Operations};
use crate::config::Gpt2Config;
use crate::kv_cache::KvCache;
use crate::layers::{Embedding, LayerNorm};
use crate::ops::convert::{primitive, round, rows, tensor, widen};
use crate::ops::{ClassifierShape, DecodeKernels, Gpt2Backend, classifier_loss, embed, logits, token_losses};
use crate::precision::Precision;
use crate::recompute::Recompute;
use burn::module::Module;
use burn::nn::Dropout;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// Tokens that kernels for one position take one after the other; more are computed together.
const FEW_POSITIONS: usize = 64;

/// A GPT-2. Field names are Hugging Face's, so that a parameter's path in the module is its name in a weights file.
#[derive(Module, Debug)]
pub struct Gpt2<B: Backend> {
    /// Token embedding, and the classifier where there is no other, `[padded vocabulary, C]`.
    pub wte: Embedding<B>,
    /// Position embedding, `[block_size, C]`.
    pub wpe: Embedding<B>,
    /// The blocks.
    pub h: Vec<Block<B>>,
    /// Before the classifier.
    pub ln_f: LayerNorm<B>,
    /// The classifier where it is not the token embedding, `[padded vocabulary, C]`.
    pub lm_head: Option<Embedding<B>>,
    /// On the sum of the embeddings.
    pub embd_dropout: Dropout,
    /// The shape.
    #[module(skip)]
    pub config: Gpt2Config,
    /// The type of the matrix products.
    #[module(skip)]
    pub precision: Precision,
    /// What the backward pass recomputes.
    #[module(skip)]
    pub recompute: Recompute,
    /// By which operations it is computed.
    #[module(skip)]
    pub operations: Operations,
}

impl<B: Backend> Gpt2<B> {
    /// The same model, computing its products in `precision`.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same model, recomputing in its backward pass what `recompute` says.
    #[must_use]
    pub fn with_recompute(mut self, recompute: Recompute) -> Self {
        self.recompute = recompute;
        self
    }

    pub(crate) fn classifier_embedding(&self) -> &Embedding<B> {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }

    /// The same model, computed by `operations`.
    #[must_use]
    pub fn with_operations(mut self, operations: Operations) -> Self {
        self.operations = operations;
        self
    }
}

impl<B: Gpt2Backend> Gpt2<B> {
    /// The blocks, by their number, that training computes as one operation each; the others go operation by operation.
    /// In their order.
    pub fn blocks_in_one_operation(&self) -> Vec<usize> {
        let is_one = |number: &usize| self.h[*number].is_one_operation(self.operations, true);
        (0..self.h.len()).filter(is_one).collect()
    }

    /// The residual stream after the last LayerNorm, in the type of the products.
    ///
    /// # Shapes
    /// `tokens` is `[B, T]`; the result `[B, T, C]`.
    ///
    /// # Panics
    /// If `T` (with what the cache holds) is longer than `block_size`.
    pub fn hidden(&self, tokens: Tensor<B, 2, Int>, cache: Option<&mut KvCache<B>>) -> Tensor<B, 3> {
        self.hidden_in(self.precision, tokens, cache)
    }

    /// [`Self::hidden`] with the products of `precision`, and in their type.
    fn hidden_in(
        &self,
        precision: Precision,
        tokens: Tensor<B, 2, Int>,
        mut cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        let [_, seq] = tokens.dims();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        self.check_length(past + seq);
        let by = self.computation(precision);
        let x = embed(
            by.operations,
            self.wte.weight.val(),
            self.wpe.weight.val(),
            tokens,
            past,
        ); // [B, T, C]
        let shape = x.dims();
        // The stream is a matrix from here on: one product takes all rows, and its derivative adds up in one place.
        let mut x = rows(self.embd_dropout.forward(x));
        for (i, block) in self.h.iter().enumerate() {
            let cache = cache.as_mut().map(|cache| &mut cache.layers[i]);
            x = block.forward_behind(i > 0, x, seq, by, cache);
        }
        self.ln_f.forward(x, by).reshape(shape)
    }

    /// Logits of the next token at every position, in `f32`, without the padded rows.
    ///
    /// # Shapes
    /// `tokens` is `[B, T]`; the result `[B, T, V]`.
    pub fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.classify(self.hidden_in(B::plain_precision(self.precision), tokens, None))
    }

    /// Logits after the last of `tokens`, which continue what `cache` holds.
    ///
    /// # Shapes
    /// `tokens` is `[B, T]`; the result `[B, V]`.
    pub fn next_logits(&self, tokens: Tensor<B, 2, Int>, cache: &mut KvCache<B>) -> Tensor<B, 2> {
        self.last_logits(tokens, Some(cache))
    }

    /// [`Self::next_logits`], with a cache or without.
    pub(crate) fn last_logits(&self, tokens: Tensor<B, 2, Int>, cache: Option<&mut KvCache<B>>) -> Tensor<B, 2> {
        let [_, seq] = tokens.dims();
        let precision = B::plain_precision(self.precision);
        let kernels = match self.operations {
            Operations::Kernels => B::decode_kernels(&self.config),
            Operations::Reference => None,
        };
        let hidden = match (cache, &kernels) {
            (Some(cache), Some(kernels)) if seq <= FEW_POSITIONS => self.decode(kernels, &tokens, cache),
            (cache, _) => self
                .hidden_in(precision, tokens, cache)
                .narrow(1, seq - 1, 1)
                .squeeze_dim(1),
        }; // [B, C]
        let Some(kernels) = kernels else {
            return self.classify(hidden.unsqueeze_dim(1)).squeeze_dim(1); // [B, V]
        };
        let shape = ClassifierShape {
            precision,
            ..self.classifier_shape()
        };
        let classifier = self.classifier_embedding();
        let classifier = classifier
            .operand_in(precision)
            .unwrap_or_else(|| classifier.weight.val());
        tensor((kernels.logits)(primitive(widen(hidden)), primitive(classifier), shape))
    }

    /// The hidden states after the last of `tokens`, one position after the other.
    ///
    /// # Shapes
    /// `tokens` is `[B, T]`; the result `[B, C]`, in `f32`.
    fn decode(&self, kernels: &DecodeKernels<B>, tokens: &Tensor<B, 2, Int>, cache: &mut KvCache<B>) -> Tensor<B, 2> {
        let [_, seq] = tokens.dims();
        self.check_length(cache.len() + seq);
        let precision = B::plain_precision(self.precision);
        let position = |position, cache: &mut KvCache<B>| {
            let token = tokens.clone().narrow(1, position, 1); // [B, 1]
            let (wte, wpe) = (self.wte.weight.val(), self.wpe.weight.val());
            let mut x = rows(embed(self.operations, wte, wpe, token, cache.len()));
            for (block, cache) in self.h.iter().zip(&mut cache.layers) {
                x = block.decode(kernels, x, precision, cache);
            }
            x
        };
        let x = (0..seq).map(|t| position(t, cache)).last().expect("at least one token");
        // The logits' kernel rounds.
        self.ln_f.forward(x, self.computation(Precision::F32))
    }

    fn computation(&self, precision: Precision) -> Computation {
        Computation {
            precision,
            recompute: self.recompute,
            operations: self.operations,
        }
    }

    fn check_length(&self, positions: usize) {
        let block_size = self.config.block_size;
        assert!(
            positions <= block_size,
            "{positions} positions do not fit a block of {block_size}"
        );
    }

    fn classify(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, seq, _] = hidden.dims();
        let weight = round(self.classifier(), B::plain_precision(self.precision));
        widen(logits(rows(hidden), weight)) // [B·T, Vp]
            .narrow(1, 0, self.config.vocab_size)
            .reshape([batch, seq, self.config.vocab_size])
    }

    /// Mean cross-entropy of `targets` in nats a token.
    ///
    /// # Shapes
    /// `inputs` and `targets` are `[B, T]`; the result `[1]`.
    pub fn loss(&self, inputs: Tensor<B, 2, Int>, targets: Tensor<B, 2, Int>) -> Tensor<B, 1> {
        let targets = flat(targets);
        let hidden = rows(self.hidden(inputs, None));
        classifier_loss(
            self.operations,
            hidden,
            self.classifier(),
            self.classifier_embedding().operand_in(self.precision),
            targets,
            self.classifier_shape(),
        )
    }

    /// Cross-entropy of each of `targets` in nats, in `f32`. Their mean is [`Gpt2::loss`]. No gradient comes from it.
    ///
    /// # Shapes
    /// `inputs`, `targets` and the result are `[B, T]`.
    pub fn token_losses(&self, inputs: Tensor<B, 2, Int>, targets: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let shape = targets.dims();
        let targets = flat(targets);
        let hidden = rows(self.hidden(inputs, None));
        let operand = self.classifier_embedding().operand_in(self.precision);
        let classifier = operand.unwrap_or_else(|| self.classifier());
        token_losses(hidden, classifier, targets, self.classifier_shape()).reshape(shape)
    }

    /// The weights of the classifier: the token embedding, or its own. The rows past the vocabulary are padding.
    ///
    /// # Shapes
    /// The result is `[Vp, C]`.
    pub fn classifier(&self) -> Tensor<B, 2> {
        self.classifier_embedding().weight.val()
    }

    fn classifier_shape(&self) -> ClassifierShape {
        ClassifierShape {
            vocab_size: self.config.vocab_size,
            precision: self.precision,
        }
    }
}

/// `[B, T]` → `[B·T]`.
fn flat<B: Backend>(tokens: Tensor<B, 2, Int>) -> Tensor<B, 1, Int> {
    let [batch, seq] = tokens.dims();
    tokens.reshape([batch * seq])
}
