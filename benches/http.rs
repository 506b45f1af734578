//! What the HTTP layer costs: `cargo bench --bench http`.
//!
//! One server has three routes with the same handler, which takes 120 bytes and answers with 32: *bare*, behind the layer over a
//! store in *memory*, and behind the layer over a redb *file*. Each line of the table is one of these under load over loopback,
//! from clients that keep their connections open and send the next request when the answer is there:
//!
//! - **fresh**: each request has a new key, so it is registered, run and recorded;
//! - **replay**: the keys are those that were fresh in the same round.
//!
//! The ratio is that of the rates, to the bare handler of the same round. Memory shows what the layer and the engine cost by
//! themselves, the file what a durable answer does. Latencies are as the clients see them, in microseconds: with one
//! connection, what the median has beyond the bare handler's is the cost of a request, and what else the machine does
//! disturbs it least; with many, latencies are mostly waiting in line. All figures are medians of the rounds, which take
//! the lines in turn. An argument picks the servers whose name contains it, such as `axum, 64`.
//!
//! The clients speak HTTP/1.1 by hand, on one thread: they share the machine with the server, and a client that costs more than
//! a bare handler would hide what is measured.

mod common;

use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::Service as _;
use actix_web::{HttpMessage as _, HttpServer, web};
use axum::Extension;
use axum::serve::ListenerExt as _;
use common::disk::{self, scratch};
use common::numbers::median;
use common::process::now;
use common::{AnyError, Asked};
use ibid::http::{Idempotency, Principal, Setup};
use ibid::store::MemoryStore;
use ibid::{Engine, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const ROUNDS: usize = 9;
/// How long each line is under load in each round.
const PHASE: Duration = Duration::from_millis(500);
const CONNECTIONS: [usize; 2] = [1, 64];
/// Threads of a server that run handlers.
const WORKERS: usize = 2;
const REQUEST: [u8; 120] = [b'r'; 120];
const ANSWER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// The lines of a server: what they are called, where they are, whether their keys are new.
const LINES: [(&str, &str, Keys); 5] = [
    ("bare", "/bare", Keys::Fresh),
    ("memory, fresh", "/memory", Keys::Fresh),
    ("memory, replay", "/memory", Keys::Replay),
    ("file, fresh", "/file", Keys::Fresh),
    ("file, replay", "/file", Keys::Replay),
];

#[derive(Clone, Copy, PartialEq)]
enum Keys {
    Fresh,
    Replay,
}

#[derive(Clone, Copy)]
enum Framework {
    Axum,
    ActixWeb,
}

fn main() -> Result<(), AnyError> {
    let asked = Asked::by_arguments();
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    disk::header()?;
    println!("\n| server | 1/s | p50, us | p99, us | ratio to bare | p50 beyond bare, us |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, framework) in [("axum", Framework::Axum), ("actix-web", Framework::ActixWeb)] {
        for connections in CONNECTIONS {
            let name = format!("{name}, {connections} connections");
            if asked.includes(&name) {
                clients.block_on(compare(&name, framework, connections))?;
            }
        }
    }
    disk::footer()
}

/// One line in one round.
#[derive(Clone, Copy)]
struct Load {
    rate: f64,
    p50: f64,
    p99: f64,
}

async fn compare(name: &str, framework: Framework, connections: usize) -> Result<(), AnyError> {
    let server = Server::start(framework)?;
    // Keys of memory and file apart: they are others' anyway.
    let mut next_key = 0;
    let mut lines = [const { Vec::new() }; LINES.len()];
    // The first round warms up.
    for round in 0..=ROUNDS {
        let mut fresh = 0..0;
        for (loads, (_, path, keys)) in lines.iter_mut().zip(LINES) {
            let first = if keys == Keys::Fresh { next_key } else { fresh.start };
            let (load, used) = load(server.address, path, keys, connections, first, fresh.end).await?;
            if keys == Keys::Fresh {
                next_key = used;
                fresh = first..used;
            }
            if round > 0 {
                loads.push(load);
            }
        }
    }
    server.stop();
    report(name, &lines);
    Ok(())
}

fn report(name: &str, lines: &[Vec<Load>; LINES.len()]) {
    let [bare, ..] = lines;
    for (loads, (line, ..)) in lines.iter().zip(LINES) {
        let of = |value: fn(&Load) -> f64| median(loads.iter().map(value));
        let (rate, p50, p99) = (of(|load| load.rate), of(|load| load.p50), of(|load| load.p99));
        let beside =
            |value: fn(&Load, &Load) -> f64| median(loads.iter().zip(bare).map(|(load, bare)| value(load, bare)));
        let ratio = beside(|load, bare| load.rate / bare.rate);
        let cost = beside(|load, bare| load.p50 - bare.p50);
        println!("| {name}: {line} | {rate:.0} | {p50:.0} | {p99:.0} | **{ratio:.3}** | {cost:.0} |");
    }
}

/// One line under load, and the first key that it has not used. Replays go round from `first` to `end`.
async fn load(
    address: SocketAddr,
    path: &str,
    keys: Keys,
    connections: usize,
    first: u64,
    end: u64,
) -> Result<(Load, u64), AnyError> {
    let turn = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(address, path).await?);
    }
    let is_guarded = path != "/bare";
    let began = now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let turn = Arc::clone(&turn);
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < PHASE {
                    let turn = turn.fetch_add(1, Ordering::Relaxed);
                    let key = if keys == Keys::Fresh { first + turn } else { first + turn % (end - first) };
                    let sent = now();
                    let is_replayed = client.ask(key).await?;
                    took.push(sent.elapsed());
                    if is_replayed != (is_guarded && keys == Keys::Replay) {
                        return Err("a replay among the fresh, or the other way round".into());
                    }
                }
                Ok::<_, AnyError>(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let total = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let micros = |part: usize| took.get(took.len() * part / 100).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6);
    let load = Load { rate: took.len() as f64 / total, p50: micros(50), p99: micros(99) };
    Ok((load, first + turn.load(Ordering::Relaxed)))
}

/// A connection that is kept open, and the request that goes over it again and again.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    key_at: usize,
    answer: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr, path: &str) -> Result<Self, AnyError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: ").into_bytes();
        let key_at = request.len();
        request.extend_from_slice(&[b'0'; 16]);
        request.extend_from_slice(format!("\r\ncontent-length: {}\r\n\r\n", REQUEST.len()).as_bytes());
        request.extend_from_slice(&REQUEST);
        Ok(Self { stream, request, key_at, answer: Vec::with_capacity(1024) })
    }

    /// Whether the answer is a replay.
    async fn ask(&mut self, key: u64) -> Result<bool, AnyError> {
        let digits = format!("{key:016x}");
        self.request[self.key_at..self.key_at + digits.len()].copy_from_slice(digits.as_bytes());
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        let head = loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err("the server hung up".into());
            }
            let Some(end) = find(&self.answer, b"\r\n\r\n") else { continue };
            if !self.answer.starts_with(b"HTTP/1.1 200") {
                return Err(String::from_utf8_lossy(&self.answer).into_owned().into());
            }
            if self.answer.len() >= end + 4 + ANSWER.len() {
                break &self.answer[..end];
            }
        };
        Ok(find(head, b"idempotency-replayed: true").is_some())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A server on a thread of its own.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), AnyError>>,
}

impl Server {
    fn start(framework: Framework) -> Result<Self, AnyError> {
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || match framework {
            Framework::Axum => {
                let mut runtime = tokio::runtime::Builder::new_multi_thread();
                runtime.worker_threads(WORKERS).enable_all().build()?.block_on(axum_server(&tell, stopped))
            }
            Framework::ActixWeb => actix_web::rt::System::new().block_on(actix_server(&tell, stopped)),
        });
        match told.recv() {
            Ok(address) => Ok(Self { address, stop, thread }),
            Err(_) => Err(match thread.join() {
                Ok(Err(error)) => error,
                _ => "the server did not start".into(),
            }),
        }
    }

    fn stop(self) {
        drop(self.stop);
        if !matches!(self.thread.join(), Ok(Ok(()))) {
            println!("the server did not stop well");
        }
    }
}

/// The engines of a server, and its layers over them.
struct Layers {
    engines: [Engine; 2],
    memory: Idempotency,
    file: Idempotency,
    _directory: tempfile::TempDir,
}

impl Layers {
    async fn open() -> Result<Self, AnyError> {
        let directory = tempfile::tempdir_in(scratch())?;
        let config = Setup::new().build().map_err(|invalid| invalid.to_string())?;
        let mut limits = Limits::default();
        limits.records_per_scope = u64::MAX;
        let memory =
            config.prepare(Engine::builder().limits(limits.clone())).open_store(Arc::new(MemoryStore::new()))?;
        let file = config.prepare(Engine::builder().limits(limits)).open(directory.path().join("ibid.redb"))?;
        let bound = async |engine| config.bind(engine).await.map_err(|invalid| invalid.to_string());
        Ok(Self {
            memory: bound(&memory).await?,
            file: bound(&file).await?,
            engines: [memory, file],
            _directory: directory,
        })
    }

    async fn close(self) {
        for engine in self.engines {
            engine.shutdown().await;
        }
    }
}

fn principal() -> Result<Principal, AnyError> {
    Ok(Principal::new("a")?)
}

async fn axum_server(tell: &mpsc::Sender<SocketAddr>, stopped: oneshot::Receiver<()>) -> Result<(), AnyError> {
    let layers = Layers::open().await?;
    let handler = || axum::routing::post(async |_: axum::body::Bytes| ANSWER);
    let router = || axum::Router::<()>::new();
    let app = router()
        .route("/bare", handler())
        .merge(router().route("/memory", handler()).layer(layers.memory.clone()))
        .merge(router().route("/file", handler()).layer(layers.file.clone()))
        .layer(Extension(principal()?));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    tell.send(listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::select! {
        biased;
        _ = stopped => {}
        served = async { axum::serve(listener, app).await } => served?,
    }
    layers.close().await;
    Ok(())
}

async fn actix_server(tell: &mpsc::Sender<SocketAddr>, stopped: oneshot::Receiver<()>) -> Result<(), AnyError> {
    fn handler(_: web::Bytes) -> Ready<&'static str> {
        ready(ANSWER)
    }
    let (layers, principal) = (Layers::open().await?, principal()?);
    let (memory, file) = (layers.memory.clone(), layers.file.clone());
    let app = move || {
        let principal = principal.clone();
        actix_web::App::new()
            .service(web::resource("/bare").route(web::post().to(handler)))
            .service(web::resource("/memory").wrap(memory.clone()).route(web::post().to(handler)))
            .service(web::resource("/file").wrap(file.clone()).route(web::post().to(handler)))
            .wrap_fn(move |request, service| {
                request.extensions_mut().insert(principal.clone());
                service.call(request)
            })
    };
    let server = HttpServer::new(app).workers(WORKERS).disable_signals().bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = server.addrs().first().copied().ok_or("it listens nowhere")?;
    let server = server.run();
    tell.send(address)?;
    let handle = server.handle();
    let served = actix_web::rt::spawn(server);
    drop(stopped.await);
    handle.stop(false).await;
    served.await??;
    layers.close().await;
    Ok(())
}
