//! System 3, `send_onion`: the vectors of its rules, the contract with its clients, and what happens when things fail.

mod contract;
mod desk;
mod failures;
mod vectors;

#[test]
fn the_example_checks_itself_and_sends_once() {
    let run = std::process::Command::new(crate::support::example("send_onion")).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    assert!(String::from_utf8(run.stdout).unwrap().ends_with("2,000 msat went out, once\n"));
}
