//! Somebody between the binary and the controller, who answers some requests in the controller's stead and remembers
//! what was asked.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::cloud::{Cloud, Said, haar};

/// How a request begins, and what it is answered with; nothing at all keeps it waiting.
type Answers = Vec<(&'static str, String)>;

/// Listens until dropped.
pub(crate) struct Between {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
    listener: JoinHandle<()>,
}

impl Drop for Between {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Between {
    pub(crate) async fn start(cloud: &Cloud, answers: Answers) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let controller = cloud.url.strip_prefix("http://").unwrap().to_owned();
        let (asked, answers) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(answers));
        let heard = Arc::clone(&asked);
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&controller).await.unwrap();
                tokio::spawn(serve(client, server, Arc::clone(&answers), Arc::clone(&heard)));
            }
        });
        Between { url, asked, listener }
    }

    /// Runs the binary as the cloud's admin, by way of here.
    pub(crate) async fn haar(&self, cloud: &Cloud, words: &str) -> Said {
        let words: Vec<&str> = words.split_whitespace().collect();
        let around = [("HAAR_URL", self.url.as_str()), ("HAAR_TOKEN", &cloud.admin)];
        haar(cloud.folder.path(), &around, &words, "").await
    }

    /// The requests so far, each as its method and path.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// One connection. A client sends the head of a request at once, and the next only after the answer.
async fn serve(
    mut client: TcpStream,
    mut server: TcpStream,
    answers: Arc<Answers>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let sent = tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(count @ 1..) => {
                    let text = String::from_utf8_lossy(&up[..count]);
                    let request = text.lines().next().unwrap_or_default().strip_suffix(" HTTP/1.1");
                    asked.lock().unwrap().extend(request.map(str::to_owned));
                    match answers.iter().find(|(start, _)| text.starts_with(start)) {
                        Some((_, answer)) => client.write_all(answer.as_bytes()).await,
                        None => server.write_all(&up[..count]).await,
                    }
                }
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(count @ 1..) => client.write_all(&down[..count]).await,
                _ => return,
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

/// An answer as it goes over the wire.
pub(crate) fn answer(status: &str, media: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {media}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A problem as it goes over the wire.
pub(crate) fn problem(status: u16, code: &str, message: &str) -> String {
    let problem = haar_api::problem::Problem::new(status, code, message);
    let body = serde_json::to_string(&problem).unwrap();
    answer(&format!("{status} No"), haar_api::problem::PROBLEM_JSON, &body)
}
