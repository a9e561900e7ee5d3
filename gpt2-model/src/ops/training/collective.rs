//! What the processes that train one model together exchange, from device to device.

/// What sums from device to device, before the ranks have met in it.
pub trait CollectiveLibrary<T, D> {
    /// What it is, with its release and where it was found.
    fn description(&self) -> String;

    /// Makes what the ranks find each other by; one of them does, and gives it to the others.
    ///
    /// # Errors
    /// [`CollectiveError`].
    fn unique_id(&self) -> Result<Vec<u8>, CollectiveError>;

    /// Joins the `size` ranks that have `id`, as rank `rank`. Waits for all of them.
    ///
    /// # Errors
    /// [`CollectiveError`].
    fn join(&self, device: &D, id: &[u8], rank: usize, size: usize) -> Result<Box<dyn Collective<T>>, CollectiveError>;
}

/// The ranks of a run, on their devices. `T` is a tensor's primitive.
pub trait Collective<T> {
    /// Queues the sum of each of `tensors` over all ranks: each rank gives as many, of the same shapes.
    fn sum(&mut self, tensors: Vec<T>) -> Vec<T>;

    /// Queues that each of `tensors` becomes that of the rank which `owners` names: each rank gives as many, of the same shapes.
    fn broadcast(&mut self, tensors: Vec<T>, owners: &[usize]) -> Vec<T>;

    /// How many milliseconds the oldest [`sum`](Self::sum) or [`broadcast`](Self::broadcast) took that was not asked for yet, from
    /// when this device was ready for it: the wait for later ranks is in it. Something that was queued behind it must have been
    /// read back.
    ///
    /// # Errors
    /// [`CollectiveError`].
    fn take_milliseconds(&mut self) -> Result<f64, CollectiveError>;

    /// Whether all that was queued so far could be.
    ///
    /// # Errors
    /// What went wrong; what was exchanged since is not to be used.
    fn check(&self) -> Result<(), CollectiveError>;
}

/// Why the ranks cannot sum on their devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CollectiveError(pub String);
