import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsServer;
import java.io.FileInputStream;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.X509ExtendedKeyManager;

/**
 * Serves HTTPS from a Java keystore as openHAB's web server does: it reads the
 * keystore as "JKS", key and store with one password, and reads it again when the
 * file has changed and then stayed the same for two looks. A file that it cannot
 * read ends it, where openHAB would refuse every visitor.
 *
 * <p>java KeystoreServer.java FILE PASSWORD PORT
 */
public class KeystoreServer {
    private static final long EVERY = 250; // milliseconds between two looks; openHAB's are 15 s apart

    public static void main(String[] args) throws Exception {
        Path file = Path.of(args[0]);
        char[] password = args[1].toCharArray();
        Keys keys = new Keys();
        FileTime loaded = Files.getLastModifiedTime(file);
        keys.load(file, password);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(new KeyManager[] {keys}, null, null);
        HttpsServer server = HttpsServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[2])), 0);
        server.setHttpsConfigurator(new HttpsConfigurator(context));
        server.start();
        System.out.println("serving");
        try {
            FileTime before = loaded;
            while (true) {
                Thread.sleep(EVERY);
                FileTime now = Files.getLastModifiedTime(file);
                if (!now.equals(loaded) && now.equals(before)) {
                    keys.load(file, password);
                    loaded = now;
                }
                before = now;
            }
        } finally {
            server.stop(0);
        }
    }

    /** What the keystore held when it was read last. */
    static class Keys extends X509ExtendedKeyManager {
        private volatile X509ExtendedKeyManager now;

        void load(Path file, char[] password) throws Exception {
            KeyStore store = KeyStore.getInstance("JKS");
            try (InputStream in = new FileInputStream(file.toFile())) {
                store.load(in, password);
            }
            KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            factory.init(store, password);
            now = (X509ExtendedKeyManager) factory.getKeyManagers()[0];
        }

        @Override
        public String chooseEngineServerAlias(String type, Principal[] issuers, SSLEngine engine) {
            return now.chooseEngineServerAlias(type, issuers, engine);
        }

        @Override
        public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
            return now.chooseServerAlias(type, issuers, socket);
        }

        @Override
        public String[] getServerAliases(String type, Principal[] issuers) {
            return now.getServerAliases(type, issuers);
        }

        @Override
        public X509Certificate[] getCertificateChain(String alias) {
            return now.getCertificateChain(alias);
        }

        @Override
        public PrivateKey getPrivateKey(String alias) {
            return now.getPrivateKey(alias);
        }

        @Override
        public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
            return null;
        }

        @Override
        public String[] getClientAliases(String type, Principal[] issuers) {
            return null;
        }
    }
}
