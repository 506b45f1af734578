//! A demo server as a child process over a file of its own: started, killed, started again over the same file.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;

use super::metrics::Metrics;
use super::{Ask, GUARD, Reply, keyless, wait_for, wait_until};

/// Which of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Axum,
    Actix,
}

impl Kind {
    /// The example's binary, beside the directory of this test's.
    fn binary(self) -> PathBuf {
        let name = match self {
            Self::Axum => "http_server",
            Self::Actix => "http_server_actix",
        };
        let this = std::env::current_exe().unwrap();
        let path = this.ancestors().nth(2).unwrap().join("examples").join(name);
        assert!(path.exists(), "{path:?} is missing. `cargo test` builds it; so does `cargo build --example {name}`");
        path
    }

    /// Runs it to its end, which must be its own: exit status and stderr.
    pub(crate) fn run(self, flags: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(self.binary());
        let child = command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let said = collect(child.stderr.take().unwrap());
        let ended = ended(&mut child);
        let lines = said.0.join().map(|()| said.1.lock().unwrap().join("\n")).unwrap();
        (ended.code(), lines)
    }
}

/// What `GET /count` says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    pub(crate) started: u64,
    pub(crate) effects: u64,
    pub(crate) finished: u64,
    pub(crate) routes: BTreeMap<String, u64>,
}

/// What `GET /admin/records` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Records {
    pub(crate) now_ms: u64,
    pub(crate) actors: u64,
    pub(crate) records: Vec<Record>,
}

/// One of its records.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) key_hash: String,
    pub(crate) route: String,
    pub(crate) state: String,
    pub(crate) attempt: u64,
    pub(crate) created_ms: u64,
    pub(crate) updated_ms: u64,
    pub(crate) expires_ms: Option<u64>,
}

/// One event of the log on stderr, section 4.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) key_hash: Option<String>,
    pub(crate) route: String,
    /// None when the client had gone.
    pub(crate) status: Option<u64>,
    pub(crate) duration_ms: f64,
    pub(crate) attempt: Option<u64>,
    pub(crate) outcome: String,
}

/// A running child: its process, its port, what it wrote to stderr.
struct Running {
    child: Child,
    port: u16,
    log: Arc<Mutex<Vec<String>>>,
    agent: ureq::Agent,
    _guard: Guard,
}

/// Kills the server when this test process ends, however it ends: its stdin closes then.
struct Guard {
    shell: Child,
    _held: ChildStdin,
}

impl Guard {
    fn of(pid: u32) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read line; kill -9 $0 2>/dev/null", &pid.to_string()]);
        let mut shell = shell.stdin(Stdio::piped()).spawn().unwrap();
        let held = shell.stdin.take().unwrap();
        Self { shell, _held: held }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before the child is reaped: its number may belong to somebody else afterwards.
        drop(self.shell.kill());
        drop(self.shell.wait());
    }
}

/// A demo server.
pub(crate) struct Server {
    kind: Kind,
    dir: tempfile::TempDir,
    running: Option<Running>,
}

impl Server {
    /// Starts one over a fresh file, with the admin endpoints and these flags.
    pub(crate) fn start(kind: Kind, flags: &[&str]) -> Self {
        Self::without_admin(kind, &[&["--admin"], flags].concat())
    }

    /// Starts one with these flags alone.
    pub(crate) fn without_admin(kind: Kind, flags: &[&str]) -> Self {
        let mut server = Self { kind, dir: tempfile::tempdir().unwrap(), running: None };
        server.launch(flags);
        server
    }

    /// Kills it, if it runs, and starts it again over the same file, with the admin endpoints and these flags.
    pub(crate) fn restart(&mut self, flags: &[&str]) {
        self.kill();
        self.launch(&[&["--admin"], flags].concat());
    }

    /// Starts it again as [`Self::restart`] does, without the admin endpoints.
    pub(crate) fn launch(&mut self, flags: &[&str]) {
        assert!(self.running.is_none());
        let mut command = Command::new(self.kind.binary());
        command.args(["--db", self.db().to_str().unwrap(), "--port", "0"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let guard = Guard::of(child.id());
        let log = collect(child.stderr.take().unwrap()).1;
        let port = port(child.stdout.take().unwrap(), &log);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .timeout_global(Some(GUARD))
            .build();
        self.running = Some(Running { child, port, log, agent: agent.into(), _guard: guard });
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The file.
    pub(crate) fn db(&self) -> PathBuf {
        self.dir.path().join("shop.redb")
    }

    /// The file of effects beside it.
    pub(crate) fn journal(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("shop.redb.journal")).unwrap_or_default()
    }

    pub(crate) fn port(&self) -> u16 {
        self.running().port
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a running server")
    }

    /// SIGKILL, and the end of the process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.child.kill().unwrap();
            running.child.wait().unwrap();
        }
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_child(&self.running().child);
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for its own end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("a running server");
        ended(&mut running.child)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub(crate) fn send(&self, ask: &Ask) -> Reply {
        let running = self.running();
        send(&running.agent, running.port, ask).unwrap_or_else(|e| panic!("{e}: {ask:?}"))
    }

    /// Heals the store and sends until the request is no longer refused for it: what had failed may still wait for its
    /// next try.
    #[track_caller]
    pub(crate) fn send_healed(&self, ask: &Ask) -> Reply {
        self.fault("on=any&fails=0");
        wait_for("the store to be back", || {
            let reply = self.send(ask);
            let refused = reply.status == 503 && reply.text().contains("idempotency_store_unavailable");
            (!refused).then_some(reply)
        })
    }

    /// One request in a thread of its own.
    pub(crate) fn spawn(&self, ask: &Ask) -> Pending {
        let (agent, port, ask) = (self.running().agent.clone(), self.port(), ask.clone());
        Pending(std::thread::spawn(move || send(&agent, port, &ask)))
    }

    /// A GET without a key, as text.
    pub(crate) fn get(&self, target: &str) -> Reply {
        let ask = Ask { method: "GET".into(), target: target.into(), headers: Vec::new(), body: Vec::new() };
        self.send(&ask)
    }

    pub(crate) fn counts(&self) -> Counts {
        serde_json::from_slice(&self.get("/count").body).unwrap()
    }

    pub(crate) fn started(&self) -> u64 {
        self.counts().started
    }

    /// Waits until this many handlers have started.
    pub(crate) fn wait_started(&self, count: u64) {
        wait_until("the handler's start", || self.started() >= count);
        assert_eq!(self.started(), count);
    }

    /// Waits until this many handlers have come to their end.
    pub(crate) fn wait_finished(&self, count: u64) {
        wait_until("the handler's end", || self.counts().finished >= count);
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let reply = self.get("/metrics");
        assert_eq!(reply.status, 200, "{reply:?}");
        Metrics::of(reply.text())
    }

    /// Waits until the metric of this route has this value.
    #[track_caller]
    pub(crate) fn wait_metric(&self, name: &str, route: &str, value: f64) {
        let what = format!("{name} of {route} to be {value}, it is {}", self.metrics().of_route(name, route));
        wait_until(&what, || (self.metrics().of_route(name, route) - value).abs() < 0.5);
    }

    /// Waits until the sum of seven days has this value.
    pub(crate) fn wait_seven_days(&self, route: &str, outcome: &str, value: f64) {
        let what = format!("seven days of {route} {outcome} to be {value}");
        wait_until(&what, || (self.metrics().seven_days(route, outcome) - value).abs() < 0.5);
    }

    /// The lines on stderr since this process began.
    pub(crate) fn log(&self) -> Vec<String> {
        self.running().log.lock().unwrap().clone()
    }

    /// The events in the log.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.log().iter().filter_map(|line| event(line)).collect()
    }

    /// Waits until the log has this many events.
    pub(crate) fn wait_events(&self, count: usize) -> Vec<Event> {
        wait_until("the log's events", || self.events().len() >= count);
        self.events()
    }

    #[track_caller]
    fn admin(&self, method: &str, target: &str) -> Value {
        let ask = keyless(method, target).without("content-type").without("x-actor").body("");
        let reply = self.send(&ask);
        assert_eq!(reply.status, 200, "{target}: {reply:?}");
        reply.json()
    }

    pub(crate) fn records(&self) -> Records {
        serde_json::from_value(self.admin("GET", "/admin/records")).unwrap()
    }

    /// The only record.
    #[track_caller]
    pub(crate) fn record(&self) -> Record {
        let records = self.records().records;
        assert_eq!(records.len(), 1, "{records:?}");
        records.into_iter().next().unwrap()
    }

    /// Waits until the only record is in this state.
    pub(crate) fn wait_state(&self, state: &str) -> Record {
        wait_for(state, || self.records().records.into_iter().next().filter(|record| record.state == state))
    }

    /// Stops the clock and says what it shows, in unix milliseconds.
    pub(crate) fn freeze(&self) -> u64 {
        self.clock("freeze=1")
    }

    /// Time passes.
    pub(crate) fn advance(&self, ms: u64) -> u64 {
        self.clock(&format!("advance_ms={ms}"))
    }

    /// The wall clock is set.
    pub(crate) fn jump(&self, ms: i64) -> u64 {
        self.clock(&format!("jump_ms={ms}"))
    }

    #[track_caller]
    pub(crate) fn clock(&self, query: &str) -> u64 {
        self.admin("POST", &format!("/admin/clock?{query}"))["now_ms"].as_u64().unwrap()
    }

    /// Sets a fault of the store.
    #[track_caller]
    pub(crate) fn fault(&self, query: &str) {
        self.admin("POST", &format!("/admin/store?{query}"));
    }

    /// One slice of the expiry sweep: how many went, and whether it was held back.
    #[track_caller]
    pub(crate) fn expiry_sweep(&self, slice: u64) -> (u64, bool) {
        let said = self.admin("POST", &format!("/admin/expiry-sweep?slice={slice}"));
        (said["removed"].as_u64().unwrap(), said["held_back"].as_bool().unwrap())
    }

    /// Overwrites the stored bytes of a record.
    #[track_caller]
    pub(crate) fn corrupt(&self, key_hash: &str) {
        self.admin("POST", &format!("/admin/corrupt?key_hash={key_hash}"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() && self.running.is_some() {
            let log = self.log();
            eprintln!("the end of the server's log:\n{}", log[log.len().saturating_sub(20)..].join("\n"));
        }
        self.kill();
    }
}

/// A request under way.
pub(crate) struct Pending(JoinHandle<Result<Reply, ureq::Error>>);

impl Pending {
    /// Its answer.
    #[track_caller]
    pub(crate) fn reply(self) -> Reply {
        self.outcome().unwrap()
    }

    /// Its answer, or why there is none.
    pub(crate) fn outcome(self) -> Result<Reply, ureq::Error> {
        self.0.join().unwrap()
    }
}

fn send(agent: &ureq::Agent, port: u16, ask: &Ask) -> Result<Reply, ureq::Error> {
    use ureq::http::Request;
    let mut request = Request::builder().method(ask.method.as_str());
    request = request.uri(format!("http://127.0.0.1:{port}{}", ask.target));
    for (name, value) in &ask.headers {
        request = request.header(name, value.as_slice());
    }
    let mut response = match ask.method.as_str() {
        "POST" | "PATCH" | "PUT" => agent.run(request.body(ask.body.clone())?)?,
        _ => agent.run(request.body(())?)?,
    };
    let headers =
        response.headers().iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let body = response.body_mut().with_config().limit(64 * 1024 * 1024).read_to_vec()?;
    Ok(Reply { status: response.status().as_u16(), headers, body })
}

fn ended(child: &mut Child) -> ExitStatus {
    wait_for("the process to end", || child.try_wait().unwrap())
}

/// Collects the lines of a pipe.
fn collect(pipe: impl std::io::Read + Send + 'static) -> (JoinHandle<()>, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&lines);
    let reader = std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            to.lock().unwrap().push(text);
            line.clear();
        }
    });
    (reader, lines)
}

/// The port in the one line on stdout.
fn port(stdout: impl std::io::Read + Send + 'static, log: &Arc<Mutex<Vec<String>>>) -> u16 {
    let (found, port) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Read to its end, so that a later line does not break the server's pipe.
            drop(found.send(line));
        }
    });
    let line = port.recv_timeout(GUARD);
    let line = line.unwrap_or_else(|e| panic!("the server did not start ({e}): {:?}", log.lock().unwrap()));
    let number = line.strip_prefix("listening on 127.0.0.1:").unwrap_or_else(|| panic!("the first line: {line}"));
    number.parse().unwrap()
}

/// The log event in this line, if it is one. The members may stand in an object of their own.
fn event(line: &str) -> Option<Event> {
    let line: Value = serde_json::from_str(line).ok()?;
    let of = |name: &str| line.get(name).or_else(|| line.get("fields")?.get(name)).cloned();
    let text = |name: &str| of(name).and_then(|value| value.as_str().map(str::to_owned));
    Some(Event {
        outcome: text("outcome")?,
        key_hash: text("key_hash"),
        route: text("route")?,
        status: of("status")?.as_u64(),
        duration_ms: of("duration_ms")?.as_f64()?,
        attempt: of("attempt").and_then(|attempt| attempt.as_u64()),
    })
}
