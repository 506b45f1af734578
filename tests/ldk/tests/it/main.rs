//! One binary: linking LDK takes longer than the tests do.

mod kv_store;
mod ldk_alone;
mod request_invoice;
mod send_payment;
