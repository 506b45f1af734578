//! Settings that do not fit together are refused before there is a layer, each by its name.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use ibid::http::{Found, InvalidSetup, Route, Setup};
use ibid::store::MemoryStore;
use ibid::{Engine, ErrorKind, Limits, PAYLOAD_BYTES_CEILING};

/// A check, and what it lets through.
type Refusal = fn(&InvalidSetup) -> bool;

fn ttl(millis: u64) -> Route {
    Route::new().ttl(Duration::from_millis(millis))
}

#[test]
fn every_setting_that_does_not_fit_is_named() {
    let new = Setup::new;
    let asking = || Route::new().ask(|_| std::future::ready(Found::CannotTell));
    let table: [(Setup, Refusal, &str); 15] = [
        (new().every_route(ttl(299_999)), |e| matches!(e, InvalidSetup::Ttl(_)), "300 to 259200 seconds, not 299.999"),
        (new().every_route(ttl(259_200_001)), |e| matches!(e, InvalidSetup::Ttl(_)), "not 259200.001"),
        (new().route("POST", "/a", ttl(0)), |e| matches!(e, InvalidSetup::Ttl(_)), "not 0"),
        (new().methods([""; 0]), |e| matches!(e, InvalidSetup::NoMethods), "no method"),
        (new().methods(["PO ST"]), |e| matches!(e, InvalidSetup::Method(_)), "\"PO ST\" is no method"),
        (new().methods(["POST", ""]), |e| matches!(e, InvalidSetup::Method(_)), "\"\" is no method"),
        (new().route("POST", "a", ttl(300_000)), |e| matches!(e, InvalidSetup::Template(_)), "\"a\" does not begin"),
        (
            new().route("POST", "/a", Route::new()).route("POST", "/a", Route::new()),
            |e| matches!(e, InvalidSetup::RouteTwice(_)),
            "POST /a is set twice",
        ),
        (
            new().route("GET", "/a", Route::new().optional()),
            |e| matches!(e, InvalidSetup::RouteOfOtherMethod(_)),
            "GET /a is of a method",
        ),
        (
            new().route("POST", "/a", Route::new().with_headers(["x tenant"])),
            |e| matches!(e, InvalidSetup::HeaderName(_)),
            "\"x tenant\" is no name",
        ),
        (new().every_route(asking()), |e| matches!(e, InvalidSetup::OracleForEveryRoute), "a route with a name"),
        (new().request_bytes(0), |e| matches!(e, InvalidSetup::Bytes(0)), "at most 0 bytes"),
        (new().answer_bytes(PAYLOAD_BYTES_CEILING), |e| matches!(e, InvalidSetup::Bytes(_)), "at most 16777216 bytes"),
        (new().problem_base("https://a b/"), |e| matches!(e, InvalidSetup::ProblemBase(_)), "\"https://a b/\""),
        (new().problem_base("<"), |e| matches!(e, InvalidSetup::ProblemBase(_)), "\"<\""),
    ];
    for (setup, is_expected, words) in table {
        let invalid = setup.build().unwrap_err();
        assert!(is_expected(&invalid) && invalid.to_string().contains(words), "{invalid:?}: {invalid}");
        assert!(invalid.source().is_none());
    }
}

#[test]
fn what_stands_on_a_bound_is_within_it() {
    let setup = Setup::new()
        .every_route(ttl(300_000))
        .methods(["POST", "M-SEARCH"])
        .route("POST", "/a", ttl(259_200_000).ask(|_| std::future::ready(Found::CannotTell)))
        .route("M-SEARCH", "/a", Route::new())
        .route("GET", "/a", Route::new().unkeyed())
        .route("POST", &*format!("/{}", "long".repeat(100)), Route::new())
        .request_bytes(1)
        .answer_bytes(PAYLOAD_BYTES_CEILING - 16 * 1024);
    setup.build().unwrap();
}

#[tokio::test]
async fn an_engine_that_was_not_prepared_is_refused_and_a_prepared_one_keeps_its_larger_limit() {
    let open = |builder: ibid::Builder| builder.open_store(Arc::new(MemoryStore::new())).unwrap();
    let config = Setup::new().build().unwrap();
    let bare = open(Engine::builder());
    let invalid = config.bind(&bare).await.unwrap_err();
    let InvalidSetup::EngineAnswerBytes { limit, needed } = invalid else { panic!("{invalid:?}") };
    assert_eq!((limit, needed), (Limits::default().answer_bytes, 80 * 1024));
    let told = invalid.to_string();
    assert!(told.starts_with("the engine keeps answers of 65536 bytes, the layer needs 81920: open it"), "{told}");
    bare.shutdown().await;

    let mut large = Limits::default();
    large.answer_bytes = 1 << 20;
    let prepared = open(config.prepare(Engine::builder().limits(large)));
    assert_eq!(prepared.limits().answer_bytes, 1 << 20);
    config.bind(&prepared).await.unwrap();
    prepared.shutdown().await;

    let invalid = config.bind(&prepared).await.unwrap_err();
    let InvalidSetup::Engine(error) = &invalid else { panic!("{invalid:?}") };
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
    assert!(invalid.source().is_some());
}
