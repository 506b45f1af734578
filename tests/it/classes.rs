//! The class table: every answer of every protocol, every error of ours and how a server tells it, row by row.

use ibid::class::{Answer, Detail, Evidence, GrpcDialect, JsonRpcDialect, JsonRpcError, classify, grpc, grpc_code};
use ibid::lightning::json_rpc_answer;
use ibid::lightning::request_invoice::RpcError;
use ibid::{Bound, Class, Error, ErrorKind, InvalidKey, Reason, Status};
use proptest::prelude::*;

use Class::{Ambiguous, Conflict, Definitive, Duplicate};

/// Success, or the class of what is none.
type Verdict = Result<(), Class>;

const CLASSES: [Class; 4] = [Duplicate, Conflict, Definitive, Ambiguous];
const GRPC_DIALECTS: [GrpcDialect; 2] = [GrpcDialect::Lnd, GrpcDialect::Unknown];
const JSON_RPC_DIALECTS: [JsonRpcDialect; 3] =
    [JsonRpcDialect::CoreLightning, JsonRpcDialect::AsyncOrder, JsonRpcDialect::Unknown];

/// Each evidence that decides by itself, and what it proves.
const PROOFS: [(Evidence, Class); 7] = [
    (Evidence::Ours(Duplicate), Duplicate),
    (Evidence::Ours(Conflict), Conflict),
    (Evidence::Ours(Definitive), Definitive),
    (Evidence::Ours(Ambiguous), Ambiguous),
    (Evidence::LndDefinite, Definitive),
    (Evidence::LndIndefinite, Ambiguous),
    (Evidence::Unreadable, Ambiguous),
];

/// gRPC: the code, its meaning in lnd's dialect and for an unknown server, without a detail.
const GRPC: [(i32, Verdict, Verdict); 17] = [
    (0, Ok(()), Ok(())),                  // OK
    (1, Err(Ambiguous), Err(Ambiguous)),  // CANCELLED
    (2, Err(Ambiguous), Err(Ambiguous)),  // UNKNOWN
    (3, Err(Definitive), Err(Ambiguous)), // INVALID_ARGUMENT
    (4, Err(Ambiguous), Err(Ambiguous)),  // DEADLINE_EXCEEDED
    (5, Err(Ambiguous), Err(Ambiguous)),  // NOT_FOUND
    (6, Err(Duplicate), Err(Ambiguous)),  // ALREADY_EXISTS
    (7, Err(Ambiguous), Err(Ambiguous)),  // PERMISSION_DENIED
    (8, Err(Ambiguous), Err(Ambiguous)),  // RESOURCE_EXHAUSTED
    (9, Err(Definitive), Err(Ambiguous)), // FAILED_PRECONDITION
    (10, Err(Ambiguous), Err(Ambiguous)), // ABORTED
    (11, Err(Ambiguous), Err(Ambiguous)), // OUT_OF_RANGE
    (12, Err(Ambiguous), Err(Ambiguous)), // UNIMPLEMENTED
    (13, Err(Ambiguous), Err(Ambiguous)), // INTERNAL
    (14, Err(Ambiguous), Err(Ambiguous)), // UNAVAILABLE
    (15, Err(Ambiguous), Err(Ambiguous)), // DATA_LOSS
    (16, Err(Ambiguous), Err(Ambiguous)), // UNAUTHENTICATED
];

fn of_grpc(dialect: GrpcDialect, code: i32, evidence: Evidence) -> Verdict {
    classify(Answer::Grpc { dialect, code, evidence })
}

fn of_json_rpc(dialect: JsonRpcDialect, code: i64, evidence: Evidence) -> Verdict {
    classify(Answer::JsonRpc { dialect, error: Some(JsonRpcError { code, evidence }) })
}

fn of_http(status: u16, problem: Option<&str>) -> Verdict {
    classify(Answer::Http { status, problem })
}

#[test]
fn every_grpc_code_has_its_row() {
    for (place, (code, lnd, unknown)) in GRPC.into_iter().enumerate() {
        assert_eq!(usize::try_from(code), Ok(place), "no code is left out");
        assert_eq!(of_grpc(GrpcDialect::Lnd, code, Evidence::Missing), lnd, "lnd, {code}");
        assert_eq!(of_grpc(GrpcDialect::Unknown, code, Evidence::Missing), unknown, "unknown server, {code}");
    }
}

#[test]
fn a_number_that_grpc_does_not_have_is_ambiguous() {
    for code in (i32::MIN..i32::MIN + 1_000).chain(-100_000..0).chain(17..100_000).chain(i32::MAX - 1_000..=i32::MAX) {
        for dialect in GRPC_DIALECTS {
            assert_eq!(of_grpc(dialect, code, Evidence::Missing), Err(Ambiguous), "{dialect:?}, {code}");
        }
    }
}

#[test]
fn the_detail_decides_whatever_the_code() {
    for (evidence, class) in PROOFS {
        for code in (1..=16).chain([-1, 17, 200, i32::MIN, i32::MAX]) {
            for dialect in GRPC_DIALECTS {
                assert_eq!(of_grpc(dialect, code, evidence), Err(class), "{dialect:?}, {code}, {evidence:?}");
            }
        }
        for code in [-32700, -32603, 0, 200, 201, 219, 1105, i64::MIN, i64::MAX] {
            for dialect in JSON_RPC_DIALECTS {
                assert_eq!(of_json_rpc(dialect, code, evidence), Err(class), "{dialect:?}, {code}, {evidence:?}");
            }
        }
    }
}

#[test]
fn a_success_is_one_whatever_its_details_say() {
    for evidence in PROOFS.into_iter().map(|(evidence, _)| evidence).chain([Evidence::Missing]) {
        for dialect in GRPC_DIALECTS {
            assert_eq!(of_grpc(dialect, grpc::OK, evidence), Ok(()), "{dialect:?}, {evidence:?}");
        }
    }
    for dialect in JSON_RPC_DIALECTS {
        assert_eq!(classify(Answer::JsonRpc { dialect, error: None }), Ok(()), "{dialect:?}");
    }
}

#[test]
fn a_json_rpc_code_means_something_in_its_own_dialect_only() {
    use JsonRpcDialect::{AsyncOrder, CoreLightning};
    let known = [
        (CoreLightning, 200, Duplicate),
        (CoreLightning, 219, Duplicate),
        (CoreLightning, 201, Conflict),
        (AsyncOrder, 1105, Conflict),
    ];
    let named = [-32700, -32600, -32601, -32602, -32603, i64::MIN, i64::MAX];
    for code in named.into_iter().chain(-32_099..=-32_000).chain(-2_000..=2_000) {
        for dialect in JSON_RPC_DIALECTS {
            let row = known.into_iter().find(|(whose, number, _)| (*whose, *number) == (dialect, code));
            let class = row.map_or(Ambiguous, |(_, _, class)| class);
            assert_eq!(of_json_rpc(dialect, code, Evidence::Missing), Err(class), "{dialect:?}, {code}");
        }
    }
}

#[test]
fn the_dialect_of_async_order_is_the_one_that_the_adapter_speaks() {
    let of = |error: &RpcError| of_json_rpc(JsonRpcDialect::AsyncOrder, error.code(), Evidence::Missing);
    assert_eq!(of(&RpcError::stale_flow()), Err(Conflict));
    for error in [
        RpcError::parse_error(),
        RpcError::invalid_request(),
        RpcError::method_not_found(),
        RpcError::missing_params(),
        RpcError::busy(),
        RpcError::outcome_unknown(),
        RpcError::invalid_hash_batch(),
        RpcError::invoice_hash_mismatch(),
    ] {
        assert_eq!(of(&error), Err(Ambiguous), "{error}");
    }
}

#[test]
fn every_problem_code_has_its_row() {
    for (problem, class) in [
        ("idempotency_key_missing", Definitive),
        ("idempotency_key_invalid", Definitive),
        ("idempotency_no_principal", Ambiguous),
        ("idempotency_mismatch", Conflict),
        ("idempotency_expired", Conflict),
        ("idempotency_in_flight", Duplicate),
        ("idempotency_answer_not_kept", Duplicate),
        ("idempotency_request_too_large", Definitive),
        ("idempotency_busy", Definitive),
        ("idempotency_store_unavailable", Ambiguous),
        ("idempotency_in_doubt", Ambiguous),
        ("idempotency_outcome_unknown", Ambiguous),
        ("idempotency_quarantined", Ambiguous),
        ("idempotency_", Ambiguous),
        ("Idempotency_Busy", Ambiguous),
        ("idempotency_busy ", Ambiguous),
        ("busy", Ambiguous),
        ("", Ambiguous),
    ] {
        for status in (0..200).chain(300..=1_000).chain([u16::MAX]) {
            assert_eq!(of_http(status, Some(problem)), Err(class), "{status}, {problem}");
        }
    }
}

#[test]
fn http_2xx_is_success_and_any_other_status_alone_proves_nothing() {
    for status in 0..=u16::MAX {
        let expected = if (200..=299).contains(&status) { Ok(()) } else { Err(Ambiguous) };
        assert_eq!(of_http(status, None), expected, "{status}");
    }
    assert_eq!(of_http(200, Some("idempotency_mismatch")), Ok(()), "a stored body is the handler's");
}

#[test]
fn no_answer_proves_nothing() {
    assert_eq!(classify(Answer::Lost), Err(Ambiguous));
}

/// How one kind of error of ours is told.
struct Told {
    kind: ErrorKind,
    class: Class,
    code: i32,
    state: Option<Status>,
    cause: &'static str,
    reason: Option<&'static [u8]>,
}

fn busy(found_absent: bool) -> ErrorKind {
    ErrorKind::Busy { bound: Bound::Engine, found_absent }
}

/// Every kind, each with what a server sends for it.
fn told() -> Vec<Told> {
    let row = |kind, class, code, state, cause| Told { kind, class, code, state, cause, reason: None };
    let known = |status| row(ErrorKind::Duplicate(status), Duplicate, 6, Some(status), "duplicate");
    let kept = || Reason::from_bytes(*b"no channel");
    let with_reason = |told: Told| Told { reason: Some(b"no channel"), ..told };
    vec![
        row(ErrorKind::Mismatch, Conflict, 9, None, "mismatch"),
        row(ErrorKind::Expired, Conflict, 9, None, "expired"),
        known(Status::Registered),
        known(Status::Dispatched),
        known(Status::InDoubt),
        known(Status::Completed),
        known(Status::Failed),
        known(Status::Tombstone),
        row(ErrorKind::AnswerNotKept, Duplicate, 6, Some(Status::Completed), "answer_not_kept"),
        row(ErrorKind::Decode, Duplicate, 6, Some(Status::Completed), "decode"),
        with_reason(row(ErrorKind::Failed(kept()), Definitive, 9, None, "failed")),
        row(ErrorKind::Fenced, Definitive, 9, Some(Status::Tombstone), "fenced"),
        row(ErrorKind::RetentionOverflow, Definitive, 3, None, "retention_overflow"),
        row(ErrorKind::RetentionMissing, Definitive, 3, None, "retention_missing"),
        row(ErrorKind::TooLarge { bytes: 2, limit: 1 }, Definitive, 3, None, "too_large"),
        row(ErrorKind::QuotaExceeded, Definitive, 8, None, "quota_exceeded"),
        row(ErrorKind::InvalidKey(InvalidKey::IdLength(0)), Definitive, 3, None, "invalid_key"),
        row(ErrorKind::InvalidKey(InvalidKey::OtherFlow), Definitive, 3, None, "invalid_key"),
        row(ErrorKind::Encode, Definitive, 3, None, "encode"),
        row(busy(false), Ambiguous, 8, None, "busy"),
        row(busy(true), Definitive, 8, None, "busy"),
        row(ErrorKind::InDoubt(None), Ambiguous, 14, Some(Status::InDoubt), "in_doubt"),
        with_reason(row(ErrorKind::InDoubt(Some(kept())), Ambiguous, 14, Some(Status::InDoubt), "in_doubt")),
        row(ErrorKind::RecoveriesExhausted, Ambiguous, 14, Some(Status::InDoubt), "recoveries_exhausted"),
        row(ErrorKind::Quarantined, Ambiguous, 15, None, "quarantined"),
        row(ErrorKind::Store, Ambiguous, 14, None, "store"),
        row(ErrorKind::Closed, Ambiguous, 14, None, "closed"),
        row(ErrorKind::Internal, Ambiguous, 14, None, "internal"),
        row(ErrorKind::Deadline, Ambiguous, 4, None, "deadline"),
        row(ErrorKind::NotFound, Ambiguous, 5, None, "not_found"),
    ]
}

#[test]
fn every_kind_of_error_is_told_with_its_code_and_its_detail() {
    for Told { kind, class, code, state, cause, reason } in told() {
        let detail = Detail::of(&Error::from(kind.clone()));
        assert_eq!(grpc_code(&kind), code, "{kind:?}");
        let expected = Detail { class, state, cause: cause.into(), reason: reason.map(Into::into) };
        assert!(detail == expected, "{kind:?}: {detail:?}, not {expected:?}");
        assert_eq!(detail.retrying_will_not_help(), cause == "quarantined", "{kind:?}");
    }
}

#[test]
fn each_kind_has_a_cause_of_its_own() {
    let causes: std::collections::BTreeSet<_> = told().into_iter().map(|told| told.cause).collect();
    assert_eq!(causes.len(), 22, "as many as `ErrorKind` has variants");
}

#[test]
fn a_client_reads_back_the_class_that_the_server_meant() {
    for Told { kind, class, code, .. } in told() {
        let detail = Detail::of(&Error::from(kind.clone()));
        let read = serde_json::from_slice::<Detail>(&serde_json::to_vec(&detail).unwrap());
        let evidence = Evidence::from(read);
        for dialect in GRPC_DIALECTS {
            assert_eq!(of_grpc(dialect, code, evidence), Err(class), "{dialect:?}, {kind:?}");
        }
    }
}

/// A client of lnd's that does not know our detail must conclude nothing that is not so: of a conflict it may learn no more
/// than that this request will not run.
#[test]
fn without_the_detail_the_code_never_promises_more() {
    for Told { kind, class, code, .. } in told() {
        let alone = of_grpc(GrpcDialect::Lnd, code, Evidence::Missing).unwrap_err();
        let harmless = match class {
            Duplicate => alone == Duplicate,
            Conflict => alone == Definitive,
            Definitive => alone == Definitive || alone == Ambiguous,
            Ambiguous => alone == Ambiguous,
        };
        assert!(harmless, "{kind:?} is {class:?}, its code alone {alone:?}");
        assert_eq!(of_grpc(GrpcDialect::Unknown, code, Evidence::Missing), Err(Ambiguous), "{kind:?}");
    }
}

/// The outcomes of a send, O1 to O12: the errors of ours that stand for each, the code on the wire, and what a client makes
/// of lnd's own answer: the code with the detail that lnd sends.
#[test]
fn the_twelve_outcomes_of_a_send_have_their_class_and_their_code() {
    let refusal = || ErrorKind::Failed(Reason::from_bytes(*b"refused"));
    let unknown = || ErrorKind::InDoubt(Some(Reason::from_bytes(*b"unknown")));
    let too_large = ErrorKind::TooLarge { bytes: 1_367, limit: 1_366 };
    let outcomes: [(&str, Vec<ErrorKind>, i32, Evidence, Class); 11] = [
        ("O2 known", vec![ErrorKind::Duplicate(Status::Registered)], 6, Evidence::Missing, Duplicate),
        ("O3 live downstream", vec![ErrorKind::Duplicate(Status::Dispatched)], 6, Evidence::Missing, Duplicate),
        ("O4 registration unknown", vec![ErrorKind::Store], 14, Evidence::LndIndefinite, Ambiguous),
        ("O5 error while registering", vec![ErrorKind::Internal], 14, Evidence::LndIndefinite, Ambiguous),
        ("O6 malformed", vec![ErrorKind::Encode, too_large], 3, Evidence::LndDefinite, Definitive),
        ("O7 no channel", vec![refusal()], 9, Evidence::LndDefinite, Definitive),
        ("O8 refused, also when empty inside", vec![refusal()], 9, Evidence::LndDefinite, Definitive),
        ("O9 shutting down", vec![ErrorKind::Closed, unknown()], 14, Evidence::LndIndefinite, Ambiguous),
        ("O10 any other error", vec![unknown()], 14, Evidence::LndIndefinite, Ambiguous),
        ("O11 the caller's deadline", vec![ErrorKind::Deadline], 4, Evidence::Missing, Ambiguous),
        ("O12 in front of the lookup", vec![busy(false)], 8, Evidence::Missing, Ambiguous),
    ];
    for dialect in GRPC_DIALECTS {
        assert_eq!(of_grpc(dialect, 0, Evidence::Missing), Ok(()), "O1 dispatched");
    }
    for (outcome, kinds, code, evidence, class) in outcomes {
        for kind in kinds {
            assert_eq!((kind.class(), grpc_code(&kind)), (class, code), "{outcome}: {kind:?}");
        }
        assert_eq!(of_grpc(GrpcDialect::Lnd, code, evidence), Err(class), "{outcome}, from lnd");
    }
    // O11 as the client's stack tells it, O12 as whatever stands in front: without a detail none of them decides.
    for code in [1, 2, 4, 7, 8, 12, 14, 16] {
        assert_eq!(of_grpc(GrpcDialect::Lnd, code, Evidence::Missing), Err(Ambiguous), "{code}");
    }
}

#[test]
fn a_detail_is_this_text() {
    let detail = |class, state, cause: &'static str, reason: Option<&[u8]>| Detail {
        class,
        state,
        cause: cause.into(),
        reason: reason.map(Into::into),
    };
    for (detail, text) in [
        (
            detail(Duplicate, Some(Status::Registered), "duplicate", None),
            r#"{"version":1,"class":"duplicate","state":"registered","cause":"duplicate","reason":null}"#,
        ),
        (
            detail(Duplicate, Some(Status::Dispatched), "duplicate", None),
            r#"{"version":1,"class":"duplicate","state":"dispatched","cause":"duplicate","reason":null}"#,
        ),
        (
            detail(Duplicate, Some(Status::Completed), "decode", None),
            r#"{"version":1,"class":"duplicate","state":"completed","cause":"decode","reason":null}"#,
        ),
        (
            detail(Conflict, None, "mismatch", None),
            r#"{"version":1,"class":"conflict","state":null,"cause":"mismatch","reason":null}"#,
        ),
        (
            detail(Definitive, Some(Status::Tombstone), "fenced", Some(b"")),
            r#"{"version":1,"class":"definitive","state":"tombstone","cause":"fenced","reason":""}"#,
        ),
        (
            detail(Definitive, Some(Status::Failed), "failed", Some(&[0x00, 0x7f, 0xff])),
            r#"{"version":1,"class":"definitive","state":"failed","cause":"failed","reason":"007fff"}"#,
        ),
        (
            detail(Ambiguous, Some(Status::InDoubt), "in_doubt", None),
            r#"{"version":1,"class":"ambiguous","state":"in_doubt","cause":"in_doubt","reason":null}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&detail).unwrap(), text);
        assert!(serde_json::from_str::<Detail>(text).unwrap() == detail, "{text}");
    }
    let short = serde_json::from_str::<Detail>(r#"{"cause":"x","class":"conflict","version":1,"later":[]}"#).unwrap();
    assert!(short == detail(Conflict, None, "x", None), "{short:?}");
}

/// A response whose error has this for its code and this for its data.
fn response(code: &str, data: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"m","data":{data}}}}}"#)
}

fn of_response(dialect: JsonRpcDialect, response: &str) -> Verdict {
    classify(json_rpc_answer(dialect, response))
}

#[test]
fn the_class_in_a_response_decides() {
    for class in CLASSES {
        let detail = Detail { class, state: None, cause: "mismatch".into(), reason: None };
        let data = format!(r#"{{"more":1,"ibid":{}}}"#, serde_json::to_string(&detail).unwrap());
        for dialect in JSON_RPC_DIALECTS {
            for code in ["-32603", "200", "201", "1105"] {
                assert_eq!(of_response(dialect, &response(code, &data)), Err(class), "{dialect:?}, {code}");
            }
        }
    }
}

#[test]
fn a_detail_that_cannot_be_read_makes_the_error_ambiguous() {
    for ibid in [
        "{}",
        "[]",
        "7",
        r#""definitive""#,
        r#"{"class":"definitive","cause":"failed"}"#,
        r#"{"version":0,"class":"definitive","cause":"failed"}"#,
        r#"{"version":2,"class":"definitive","cause":"failed"}"#,
        r#"{"version":"1","class":"definitive","cause":"failed"}"#,
        r#"{"version":1,"cause":"failed"}"#,
        r#"{"version":1,"class":null,"cause":"failed"}"#,
        r#"{"version":1,"class":"final","cause":"failed"}"#,
        r#"{"version":1,"class":"Definitive","cause":"failed"}"#,
        r#"{"version":1,"class":"definitive"}"#,
        r#"{"version":1,"class":"definitive","class":"definitive","cause":"failed"}"#,
        r#"{"version":1,"class":"definitive","cause":"failed","state":"gone"}"#,
        r#"{"version":1,"class":"definitive","cause":"failed","reason":"0"}"#,
        r#"{"version":1,"class":"definitive","cause":"failed","reason":"é"}"#,
        r#"{"version":1,"class":"definitive","cause":"failed","reason":"+1"}"#,
    ] {
        let text = response("200", &format!(r#"{{"ibid":{ibid}}}"#));
        assert_eq!(of_response(JsonRpcDialect::CoreLightning, &text), Err(Ambiguous), "{ibid}");
        assert_eq!(Evidence::from(serde_json::from_str::<Detail>(ibid)), Evidence::Unreadable, "{ibid}");
    }
    let positional = r#"{"ibid":[1,"definitive",null,"failed",null]}"#;
    let twice = r#"{"ibid":null,"ibid":{"version":1,"class":"definitive","cause":"failed"}}"#;
    for data in [positional, twice] {
        assert_eq!(of_response(JsonRpcDialect::CoreLightning, &response("200", data)), Err(Ambiguous), "{data}");
    }
}

#[test]
fn data_of_somebody_else_leaves_the_code_to_its_dialect() {
    for data in ["null", "7", r#""ibid""#, r#"["ibid"]"#, "{}", r#"{"ibid":null}"#, r#"{"class":"definitive"}"#] {
        let text = response("200", data);
        assert_eq!(of_response(JsonRpcDialect::CoreLightning, &text), Err(Duplicate), "{data}");
        assert_eq!(of_response(JsonRpcDialect::AsyncOrder, &text), Err(Ambiguous), "{data}");
        assert_eq!(of_response(JsonRpcDialect::Unknown, &text), Err(Ambiguous), "{data}");
    }
    let bare = r#"{"jsonrpc":"2.0","id":1,"error":{"code":1105,"message":"stale_flow"}}"#;
    assert_eq!(of_response(JsonRpcDialect::AsyncOrder, bare), Err(Conflict));
}

#[test]
fn a_result_is_success_and_what_is_no_response_is_lost() {
    for text in
        [r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, r#"{"id":1,"result":0,"error":null}"#, " {\"result\":\"\"} "]
    {
        for dialect in JSON_RPC_DIALECTS {
            assert_eq!(of_response(dialect, text), Ok(()), "{text}");
        }
    }
    let definitive = r#"{"ibid":{"version":1,"class":"definitive","cause":"failed"}}"#;
    let bad_code = [response("null", definitive), response("1.5", definitive), response("9e99", definitive)];
    let others = [
        "",
        "{",
        "null",
        "[]",
        r#"[{},null]"#,
        "{}",
        r#"{"result":null}"#,
        r#"{"result":null,"error":null}"#,
        r#"{"result":1,"error":{"code":200}}"#,
        r#"{"result":1,"result":1}"#,
        r#"{"error":"x"}"#,
        r#"{"error":{}}"#,
        r#"{"error":[200,null]}"#,
        r#"{"result":1} {"result":1}"#,
    ];
    for text in bad_code.iter().map(String::as_str).chain(others) {
        for dialect in JSON_RPC_DIALECTS {
            assert_eq!(json_rpc_answer(dialect, text), Answer::Lost, "{text}");
        }
    }
}

#[test]
fn debug_shows_neither_cause_nor_reason() {
    let reason: &[u8] = b"canary";
    let detail = Detail { class: Definitive, state: None, cause: "canary".into(), reason: Some(reason.into()) };
    let shown = format!("{detail:?}");
    assert!(shown.contains("Definitive") && !shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
}

proptest! {
    #[test]
    fn a_detail_survives_the_wire(
        class in proptest::sample::select(&CLASSES[..]),
        cause in any::<String>(),
        reason in any::<Option<Vec<u8>>>(),
    ) {
        let detail = Detail { class, state: None, cause: cause.into(), reason: reason.map(Into::into) };
        let text = serde_json::to_string(&detail).unwrap();
        prop_assert!(serde_json::from_str::<Detail>(&text).unwrap() == detail);
    }
}
