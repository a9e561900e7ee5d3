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
///
/// What is exchanged is queued behind all that the device has to do so far, and runs at the same time as what is queued
/// later, one exchange after the other. The tensors are in use until [`wait`](Self::wait) was called: they must be
/// kept, and not be read.
pub trait Collective<T> {
    /// Queues the sum of each of `tensors` over all ranks: each rank gives as many, of the same shapes.
    fn sum(&mut self, tensors: Vec<T>) -> Vec<T>;

    /// Queues that each of `tensors` becomes that of the rank which `owners` names: each rank gives as many, of the same shapes.
    fn broadcast(&mut self, tensors: Vec<T>, owners: &[usize]) -> Vec<T>;

    /// Lets all that is queued later wait for what is being exchanged. Gives how long the device then waits, in
    /// milliseconds, `[1]`.
    fn wait(&mut self) -> T;

    /// How many milliseconds the exchanges before the oldest [`wait`](Self::wait) took that was not asked for yet, each
    /// from when this device was ready for it: the time that other ranks came later is in it. Something that was queued
    /// behind that wait must have been read back.
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
