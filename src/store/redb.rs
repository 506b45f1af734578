//! stub
/// stub
#[derive(Debug)]
pub struct RedbStore;
/// stub
#[derive(Debug)]
pub struct RedbOptions;
