//! The routes, and what each of them chooses.

use std::sync::Arc;

use ibid::http::{Answer, Config, Found, InvalidSetup, OnPanic, Route, Setup};

use super::args::Args;
use super::doubts::Doubts;
use super::journal::Journal;

pub(crate) const PAY: &str = "POST /pay";
pub(crate) const PATCH_PAY: &str = "PATCH /pay";
pub(crate) const GET_PAY: &str = "GET /pay";
pub(crate) const REFUND: &str = "POST /refund";
pub(crate) const V1_PAY: &str = "POST /v1/pay";
pub(crate) const V2_PAY: &str = "POST /v2/pay";

/// Those with a key.
pub(crate) const KEYED: [&str; 5] = [PAY, PATCH_PAY, REFUND, V1_PAY, V2_PAY];

/// A path without a route is keyed by who sends a key, like `/v1/pay`; `/admin` is not.
pub(crate) fn setup(args: &Args, journal: &Journal, doubts: &Arc<Doubts>) -> Result<Config, InvalidSetup> {
    let mut setup = Setup::new().profile(args.profile).request_bytes(args.max_request).answer_bytes(args.max_answer);
    if args.strict_header {
        setup = setup.strict_header();
    }
    let (journal, doubts) = (journal.clone(), Arc::clone(doubts));
    let refund = base(args).on_panic(OnPanic::InDoubt).ask(move |inquiry| {
        let found = journal.find(*inquiry.token()).map_or(Found::CannotTell, |n| Found::Done(recovered(n)));
        doubts.note_asked(inquiry.token());
        async { found }
    });
    setup = setup
        .every_route(base(args).optional())
        .route("POST", "/pay", base(args))
        .route("PATCH", "/pay", base(args))
        .route("POST", "/refund", refund)
        .route("POST", "/v1/pay", base(args).optional())
        .route("POST", "/v2/pay", base(args).rerun());
    if args.admin {
        for path in super::admin::POSTED {
            setup = setup.route("POST", path, Route::new().unkeyed());
        }
    }
    setup.build()
}

/// What the flags say of every route.
fn base(args: &Args) -> Route {
    let route = Route::new()
        .ttl(args.ttl)
        .grace(args.grace)
        .on_running(args.on_running)
        .on_expired(args.on_expired)
        .keep_5xx(args.keep_5xx);
    if args.canonical_json { route.canonical_json() } else { route }
}

/// What the refund would have answered is not known any more, that it went out is.
fn recovered(n: u64) -> Answer {
    let body = format!(r#"{{"route":"{REFUND}","n":{n},"recovered":true}}"#);
    Answer::new(200).header("content-type", "application/json").body(body.into_bytes())
}
