"""An object store that speaks as S3: moto's server with a bucket `lake`, until standard input ends.

Arguments are pairs of key and file; what is stored is theirs. Prints the port.
"""
import sys

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
store = boto3.client(
    "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
    aws_access_key_id="key", aws_secret_access_key="secret",
)
store.create_bucket(Bucket="lake")
for key, file in zip(sys.argv[1::2], sys.argv[2::2]):
    store.upload_file(file, "lake", key)
print(port, flush=True)
sys.stdin.read()
server.stop()
