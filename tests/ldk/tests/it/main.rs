//! One binary: linking LDK takes longer than the tests do.

mod ldk_alone;
mod request_invoice;
mod send_payment;
