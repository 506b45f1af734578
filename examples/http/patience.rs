//! Reads that the store may refuse for a moment: after a failed commit it is opened anew.

use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;

const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// What it reads as soon as it can, or why it cannot, after 2 s.
pub(crate) async fn patiently<T, E, Reading>(read: impl Fn() -> Reading) -> Result<T, E>
where
    Reading: Future<Output = Result<T, E>>,
{
    for _ in 1..TRIES {
        if let Ok(found) = read().await {
            return Ok(found);
        }
        sleep(PAUSE).await;
    }
    read().await
}
