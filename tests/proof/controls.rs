//! A positive control: power losses that find nothing prove nothing until they have found what is known to be there.
//!
//! redb 4.1.0 has known faults that later versions have mended: after some crashes its files can't be opened, or opening them
//! panics. It lives in a process of its own (`tests/redb-4.1`, which the gate builds and names in `IBID_OLD_REDB`), since cargo
//! takes no two such versions into one build. Its writes are done again on the simulated disk; then the same power losses that
//! our store is put through must find its faults. Bugs of our own are planted by the gate.

use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ibid::testing::{PowerLoss, SimulatedDisk};
use redb::StorageBackend;

use crate::scale::Scale;

/// The older redb, in its process.
struct Older {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What the power losses of all lives have come to.
#[derive(Debug, Default)]
struct Found {
    losses: u64,
    panics: u64,
    refused: u64,
    neither_state: u64,
}

impl Older {
    fn start(program: &str, seed: u64) -> Self {
        let mut process = Command::new(program)
            .arg(seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("IBID_OLD_REDB is the program of tests/redb-4.1");
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, input, output: BufReader::new(output) }
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.output.read_exact(&mut byte).unwrap();
        byte[0]
    }

    fn number(&mut self) -> u64 {
        let mut number = [0; 8];
        self.output.read_exact(&mut number).unwrap();
        u64::from_le_bytes(number)
    }

    /// Does its writes again, on this disk. Returns the digest of its rows after each commit, and the syncs by then.
    fn live_on(&mut self, disk: &SimulatedDisk) -> Vec<(usize, u64)> {
        let (file, mut commits) = (disk.file().unwrap(), Vec::new());
        loop {
            match self.byte() {
                b'W' => {
                    let offset = self.number();
                    let mut data = vec![0; usize::try_from(self.number()).unwrap()];
                    self.output.read_exact(&mut data).unwrap();
                    file.write(offset, &data).unwrap();
                }
                b'L' => file.set_len(self.number()).unwrap(),
                b'S' => file.sync_data().unwrap(),
                b'C' => commits.push((disk.syncs(), self.number())),
                b'E' => return commits,
                other => panic!("{other} is no news"),
            }
        }
    }

    fn open(&mut self, loss: &PowerLoss, commits: &[(usize, u64)], found: &mut Found) {
        let Some(least) = commits.iter().rposition(|(syncs, _)| *syncs <= loss.syncs()) else { return };
        let bytes = loss.disk().bytes();
        self.input.write_all(&(bytes.len() as u64).to_le_bytes()).unwrap();
        self.input.write_all(&bytes).unwrap();
        self.input.flush().unwrap();
        found.losses += 1;
        match self.byte() {
            b'P' => found.panics += 1,
            b'U' => found.refused += 1,
            _ => {
                let digest = self.number();
                let is_one_of_both = commits.iter().skip(least).take(2).any(|(_, state)| *state == digest);
                found.neither_state += u64::from(!is_one_of_both);
            }
        }
    }

    fn end(mut self) {
        drop(self.input);
        assert!(self.process.wait().unwrap().success());
    }
}

#[test]
fn controls_power_losses_find_the_known_faults_of_an_older_redb() {
    let scale = Scale::from_env();
    let Ok(program) = std::env::var("IBID_OLD_REDB") else {
        assert_eq!(scale, Scale::Taste, "the gate must name the older redb in IBID_OLD_REDB");
        return;
    };
    let mut found = Found::default();
    for seed in 0..scale.of(2, 20, 200) {
        let (disk, mut older) = (SimulatedDisk::holding(&[]).unwrap(), Older::start(&program, seed));
        let commits = older.live_on(&disk);
        disk.for_each_power_loss(12, seed, |loss| older.open(loss, &commits, &mut found));
        older.end();
    }
    println!("redb 4.1.0: {found:?}");
    assert!(found.panics + found.refused + found.neither_state > 0, "{found:?}: a known fault was not found");
}
