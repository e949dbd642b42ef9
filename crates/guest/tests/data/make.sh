#!/bin/sh
# Makes the certificates here: an authority, a server that it signed, and an authority that signed nobody.
# Good from 2020 to 2120, and for tests alone: the server's key is here for everybody.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/conf" <<END
[ca]
default_ca = this
[this]
database = $work/index
new_certs_dir = $work
serial = $work/serial
default_md = sha256
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[server]
basicConstraints = critical,CA:FALSE
subjectAltName = DNS:onegate.example,IP:127.0.0.1
END
: >"$work/index"
echo 01 >"$work/serial"
new() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$work/$1.key" -out "$work/$1.csr" -subj "/CN=$2"
}
# sign NAME KIND, by its own key or by what follows.
sign() {
    name=$1 kind=$2
    shift 2
    openssl ca -batch -notext -config "$work/conf" -startdate 20200101000000Z -enddate 21200101000000Z \
        -extensions "$kind" -in "$work/$name.csr" -out "$name.pem" "$@"
}
for name in ca stranger; do
    new $name "Test $name"
    sign $name authority -selfsign -keyfile "$work/$name.key"
done
new server onegate.example
sign server server -cert ca.pem -keyfile "$work/ca.key"
cp "$work/server.key" .
