//! System 3, `send_onion`: the vectors of its rules, the contract with its clients, and what happens when things fail.

mod contract;
mod desk;
mod failures;
mod vectors;
