//! wgpu takes the reference as it stands.

use crate::ops::Gpt2Backend;
use burn_fusion::{Fusion, FusionBackend};

impl<B: FusionBackend> Gpt2Backend for Fusion<B> {}
