//! `understudy`.

use std::process::ExitCode;

use bootstrap::{cli, ui};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    continuity::aws::install_tls();
    match cli::run(cli::Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui::print_error(failure.message(), failure.next());
            ExitCode::FAILURE
        }
    }
}
