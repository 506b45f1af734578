//! A double click and a retry after an error: one invoice, four tries, paid once.
//!
//! `cargo run --example send_payment`. It checks itself.
//!
//! LDK is played by a few lines that show where its own guard ends: an id whose payment has failed, or that it has forgotten, is
//! free again, and it would pay.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ibid::lightning::Blocking;
use ibid::lightning::send_payment::*;
use ibid::{Engine, Flow, NodeId, Policy};

#[derive(Default)]
struct Ldk {
    paid_out: AtomicUsize,
    recent: Mutex<HashMap<[u8; 32], Listed>>,
}

impl BlockingPayer for Ldk {
    fn send(&self, payment: &Dispatch) -> Result<(), SendError> {
        let (id, payment_hash) = (payment.request.id, payment.request.payment_hash());
        self.paid_out.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut recent) = self.recent.lock() {
            recent.insert(id, Listed { state: Listing::Pending, payment_hash });
        }
        // The payment is on its way, and the host cannot save its own note of it.
        Err(SendError::PersistenceFailed)
    }

    fn abandon(&self, _: &[u8; 32]) {}

    fn recent(&self, id: &[u8; 32]) -> Option<Listed> {
        self.recent.lock().ok()?.get(id).copied()
    }

    fn fulfilled(&self) -> Vec<[u8; 32]> {
        // What is paid it forgets at once.
        Vec::new()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let ldk = Arc::new(Ldk::default());
    let flow = Flow::new(FLOW_NAME, Policy::send_payment())?;
    let setup = SendPaymentSetup::new(flow, NodeId::new([2; 33])?, Arc::new(Blocking::new(Arc::clone(&ldk))));
    let engine = setup.prepare(Engine::builder()).open_in_memory()?;
    let payments = setup.bind(engine.clone())?;
    payments.synced();

    // The payment hash is the id: whoever pays this invoice, from whatever button, means this payment.
    let (id, payment_hash) = ([7; 32], [7; 32]);
    let payee = Payee::Bolt11 { invoice: "lnbc25u1...".into(), payment_hash };
    let invoice = PaymentRequest { amount_msat: Some(2_500_000), ..PaymentRequest::new(id, payee) };

    let (first, second) = tokio::join!(payments.send(invoice.clone()), payments.send(invoice.clone()));
    println!("clicked:       {first:?}\nclicked again: {second:?}");
    assert!(first.is_ok() || matches!(first, Err(PaymentError::Ambiguous(_))));
    let retry = payments.send(invoice.clone()).await?;
    println!("tried again:   {retry:?}");
    assert!(matches!(retry, Sent::Known(Standing::Dispatched | Standing::InDoubt)));

    // LDK says that it is paid, and then forgets the id.
    let paid = Paid { preimage: [9; 32], payment_hash, fee_msat: Some(1_000) };
    assert_eq!(payments.payment_sent(PaymentSent { id, paid: paid.clone(), attempt: None }).await?, Handled::Recorded);
    ldk.recent.lock().map_err(|_| "poisoned")?.clear();
    let late = payments.send(invoice).await?;
    println!("much later:    {late:?}");
    assert_eq!(late, Sent::Known(Standing::Completed(paid)));

    assert_eq!(ldk.paid_out.load(Ordering::Relaxed), 1);
    println!("paid once");
    engine.shutdown().await;
    Ok(())
}
