// Answers by HTTP on the first socket that it inherits. Leaves by SIGTERM.
const http = require('http');
const server = http.createServer((request, response) => response.end('node ' + process.env.FORKD_WORKER));
server.listen({ fd: 3 });
process.on('SIGTERM', () => server.close(() => process.exit(0)));
