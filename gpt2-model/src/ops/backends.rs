//! Backends that take the reference as it stands.

#[cfg(feature = "cube")]
mod cube {
    use crate::ops::Gpt2Backend;
    use burn::tensor::backend::{Backend, DeviceOps};
    use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
    use burn_fusion::{Fusion, FusionBackend};

    impl<R, F, I, BT> Gpt2Backend for CubeBackend<R, F, I, BT>
    where
        R: CubeRuntime,
        R::Device: DeviceOps,
        F: FloatElement,
        I: IntElement,
        BT: BoolElement,
        Self: Backend,
    {
    }

    impl<B: FusionBackend> Gpt2Backend for Fusion<B> {}
}
