//! The consumer of JSON events.

use clap::Parser;
use understudy_consumer::config::Settings;
use understudy_consumer::service;
use understudy_example_json_events::Events;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    service::main(Settings::parse(), |settings| Ok(Events::new(&settings.schema)?)).await
}
