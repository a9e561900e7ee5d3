//! Weights in the type of the matrix products, kept next to those in `f32`: an optimizer that writes both saves a rounding in
//! each forward pass.

use crate::block::Block;
use crate::layers::{Embedding, Linear};
use crate::model::Gpt2;
use crate::ops::Gpt2Backend;
use crate::precision::Precision;
use burn::module::{AutodiffModule, ParamId};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, FloatDType, Tensor, TensorPrimitive};
use std::collections::HashMap;

/// Operands of products by the parameters that they are rounded from, each in its parameter's shape.
pub type Operands<B> = HashMap<ParamId, Tensor<B, 2>>;

impl<B: Gpt2Backend> Linear<B> {
    /// The operand, if there is one of this precision.
    pub(crate) fn operand_in(&self, precision: Precision) -> Option<Tensor<B, 2>> {
        of_precision(self.operand.as_ref(), precision)
    }
}

impl<B: Gpt2Backend> Embedding<B> {
    /// The operand, if there is one of this precision.
    pub(crate) fn operand_in(&self, precision: Precision) -> Option<Tensor<B, 2>> {
        of_precision(self.operand.as_ref(), precision)
    }
}

fn of_precision<B: Gpt2Backend>(operand: Option<&Tensor<B, 2>>, precision: Precision) -> Option<Tensor<B, 2>> {
    operand
        .filter(|operand| operand.dtype() == DType::from(B::operand_type(precision)))
        .cloned()
}

impl<B: Gpt2Backend> Gpt2<B> {
    /// The same model with its weights kept in the type of its products too, where that is `bf16`: for one that is not trained
    /// on, whose passes then do not round them.
    #[must_use]
    pub fn with_rounded_operands(mut self) -> Self {
        let dtype = B::operand_type(self.precision);
        if dtype != FloatDType::BF16 {
            return self;
        }
        for product in self.h.iter_mut().flat_map(Block::products_mut) {
            product.operand = Some(rounded(product.weight.val(), dtype));
        }
        let classifier = self.lm_head.as_mut().unwrap_or(&mut self.wte);
        classifier.operand = Some(rounded(classifier.weight.val(), dtype));
        self
    }
}

fn rounded<B: Gpt2Backend>(weight: Tensor<B, 2>, dtype: FloatDType) -> Tensor<B, 2> {
    let rounded = B::round_weights(weight.into_primitive().tensor(), dtype);
    Tensor::from_primitive(TensorPrimitive::Float(rounded))
}

impl<B: AutodiffBackend + Gpt2Backend> Gpt2<B>
where
    B::InnerBackend: Gpt2Backend,
{
    /// The weights that training would round in each forward pass, rounded to the model's precision; none where operands are
    /// `f32` in memory, or where the blocks are not computed as one operation each.
    pub fn round_operands(&self) -> Operands<B::InnerBackend> {
        let blocks_round = |block: &Block<B>| block.is_one_operation(self.operations, true);
        let dtype = B::operand_type(self.precision);
        if dtype != FloatDType::BF16 || !self.h.iter().all(blocks_round) {
            return HashMap::new();
        }
        let model = self.valid();
        let products = model.h.iter().flat_map(Block::products);
        let weights = products.map(|product| &product.weight);
        weights
            .chain([&model.classifier_embedding().weight])
            .map(|weight| (weight.id, rounded(weight.val(), dtype)))
            .collect()
    }

    /// The same model with `operands` for those of its weights that they were rounded from, and none for the others. They must
    /// be up to date: nothing compares them with the weights.
    #[must_use]
    pub fn with_operands(mut self, operands: &Operands<B::InnerBackend>) -> Self {
        let operand = |id: ParamId| operands.get(&id).cloned().map(Tensor::from_inner);
        for product in self.h.iter_mut().flat_map(Block::products_mut) {
            product.operand = operand(product.weight.id);
        }
        let classifier = self.lm_head.as_mut().unwrap_or(&mut self.wte);
        classifier.operand = operand(classifier.weight.id);
        self
    }
}
