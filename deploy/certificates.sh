#!/bin/sh
# Makes a CA, and one certificate for the gateways of all cells, with openssl:
#   deploy/certificates.sh DIRECTORY NAME…
# The names are those by which gateways are called: by users, and by one another (BOATYARD_GATEWAY_ADVERTISED_ADDRESS).
# localhost and 127.0.0.1 are always among them, for `boatyard up` and the command line beside it. Run again, it renews
# the certificate under the same CA; gateways take the new one without a restart.
set -eu
umask 077
directory=${1:?a directory}
shift
mkdir -p "$directory"
cd "$directory"
days=825

names="DNS:localhost,IP:127.0.0.1"
for name in "$@"; do names="$names,DNS:$name"; done

if ! [ -e ca.key ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 3650 \
        -subj "/CN=Boatyard CA" -keyout ca.key -out ca.crt
fi
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj "/CN=boatyard" \
    -keyout gateway.key.new -out gateway.csr
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names" > gateway.ext
openssl x509 -req -in gateway.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days $days -extfile gateway.ext \
    -out gateway.crt.new
mv gateway.key.new gateway.key
mv gateway.crt.new gateway.crt
rm gateway.csr gateway.ext
chmod 644 ca.crt gateway.crt
