//! Every kind of host: multi-thread tokio, current-thread tokio, a plain thread, an actix system, another actor.

use crate::support::*;
use actix::Actor as _;
use ibid::{Call, End, Engine, ErrorKind, How, Reply, Submission};
use std::sync::mpsc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_multi_thread_runtime() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    let engine = bench.open();
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (engine, call, operation) = (engine.clone(), call(&flow, "a", "r"), counted.operation());
            tokio::spawn(async move { answer(&engine, call, operation).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[test]
fn a_plain_thread_without_a_runtime() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    let engine = bench.open();
    for how in [How::Executed, How::Replayed] {
        match engine.submit_blocking(call(&flow, "a", "r"), counted.operation()).unwrap() {
            Reply::Answer(outcome) => assert_eq!(outcome.how, how),
            Reply::Accepted => panic!("accepted"),
        }
    }
    let (sender, done) = mpsc::channel();
    engine.try_submit(call(&flow, "a", "r"), counted.operation(), move |reply| sender.send(reply).unwrap()).unwrap();
    assert!(done.recv().unwrap().is_ok());
    assert!(done.recv().is_err(), "exactly once");
    assert_eq!(counted.runs(), 1);
    engine.shutdown_blocking();
}

#[test]
fn inside_an_actix_system() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    actix::System::new().block_on(async {
        let engine = bench.open();
        assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
        assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Replayed);
        engine.shutdown().await;
    });
    assert_eq!(counted.runs(), 1);
}

/// An actor of a host that has other actors answer for it.
struct Caller {
    engine: actix::Recipient<Submission>,
}

struct Order {
    call: Call,
    operation: ibid::Operation,
}

impl actix::Message for Order {
    type Result = Result<Reply, ibid::Error>;
}

impl actix::Actor for Caller {
    type Context = actix::Context<Self>;
}

impl actix::Handler<Order> for Caller {
    type Result = actix::ResponseFuture<Result<Reply, ibid::Error>>;

    fn handle(&mut self, Order { call, operation }: Order, _: &mut Self::Context) -> Self::Result {
        let sent = self.engine.send(Submission { call, operation });
        Box::pin(async move { sent.await.unwrap() })
    }
}

#[test]
fn message_passing_callers_get_the_same() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    actix::System::new().block_on(async {
        let engine = bench.open();
        let caller = Caller { engine: engine.recipient() }.start();
        let orders =
            (0..10).map(|_| caller.send(Order { call: call(&flow, "a", "r"), operation: counted.operation() }));
        for order in orders.collect::<Vec<_>>() {
            assert!(matches!(order.await.unwrap().unwrap(), Reply::Answer(_)));
        }
        let recipient = engine.recipient();
        engine.shutdown().await;
        let closed = recipient.send(Submission { call: call(&flow, "a", "r"), operation: counted.operation() }).await;
        match closed {
            Ok(reply) => assert!(matches!(reply.unwrap_err().kind(), ErrorKind::Closed)),
            Err(mailbox) => assert_eq!(mailbox, actix::MailboxError::Closed),
        }
    });
    assert_eq!(counted.runs(), 1);
}

/// Opens the file again when whoever has it has given it up.
fn reopened(bench: &Bench) -> Engine {
    loop {
        match Engine::builder().clock(bench.clock.clone()).open(bench.path()) {
            Ok(engine) => break engine,
            Err(ibid::store::StoreError::AlreadyOpen) => std::thread::yield_now(),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_last_handle_dropped_on_a_runtime_closes_the_engine_without_blocking_it() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = bench.open();
        answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
        drop(engine);
    });
    // The file is given up soon after, without anybody's help.
    let engine = reopened(&bench);
    assert!(engine.submit_blocking(call(&flow, "a", "r"), counted.operation()).is_ok());
    assert_eq!(counted.runs(), 1);
    engine.shutdown_blocking();
}

#[tokio::test]
async fn a_message_that_waits_does_not_keep_the_engine_open() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    let engine = bench.open();
    let accepted = engine.submit(call(&flow, "a", "r"), counted.ending(|_| End::Accepted)).await.unwrap();
    assert_eq!(accepted, Reply::Accepted);
    let recipient = engine.recipient();
    let waiting = recipient.send(Submission { call: call(&flow, "a", "r"), operation: counted.operation() });
    until(&engine, |stats| stats.in_flight == 1).await;
    settled(&engine).await;
    drop(engine);
    let heard = tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await.expect("it keeps it open");
    match heard {
        Ok(reply) => assert!(matches!(reply.unwrap_err().kind(), ErrorKind::Closed)),
        Err(mailbox) => assert_eq!(mailbox, actix::MailboxError::Closed),
    }
    let engine = tokio::task::spawn_blocking(move || reopened(&bench)).await.unwrap();
    assert_eq!(engine.stats().await.unwrap().records.dispatched, 1);
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[test]
fn a_host_runtime_that_is_gone_gives_a_typed_answer_and_leaves_the_record_in_doubt() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine = {
        let _inside = runtime.enter();
        bench.open()
    };
    runtime.shutdown_background();
    let heard = engine.submit_blocking(call(&flow, "a", "r"), counted.operation()).unwrap_err();
    assert!(matches!(heard.kind(), ErrorKind::InDoubt(_)), "{heard:?}");
    let called = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&called);
    let refused = engine.try_submit(call(&flow, "b", "r"), counted.operation(), move |_| {
        flag.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert!(matches!(refused.unwrap_err().kind(), ErrorKind::Closed));
    assert!(!called.load(std::sync::atomic::Ordering::SeqCst), "after a refusal the callback never runs");
    assert_eq!(counted.runs(), 0);
    engine.shutdown_blocking();
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_not_the_operation() {
    let (bench, flow, (counted, mut starts)) = (Bench::new(), flow(), Counted::held());
    let engine = bench.open();
    let impatient = call(&flow, "a", "r").deadline(std::time::Duration::from_millis(1));
    let heard = error(&engine, impatient, counted.operation()).await;
    assert!(matches!(heard.kind(), ErrorKind::Deadline), "{heard:?}");
    starts.recv().await.unwrap();
    counted.release();
    assert_ne!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}
