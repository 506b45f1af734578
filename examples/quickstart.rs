//! The README's example: run it twice, and the second run gets the first one's answer.

use ibid::{Engine, Flow, Policy};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::open("quickstart.redb")?;
    let orders = Flow::new("shop.order", Policy::replay(Duration::from_secs(86_400)))?;
    let key = orders.key("customer-17", "order-1")?;
    let order = ("espresso", 2);
    let outcome = engine.run(&orders, &key, &order, async |_| Ok("receipt 4711".to_string())).await?;
    println!("{}: {}", outcome.how, outcome.answer);
    engine.shutdown().await;
    Ok(())
}
