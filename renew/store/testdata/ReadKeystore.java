import java.io.FileInputStream;
import java.io.InputStream;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.util.Collections;
import java.util.TreeSet;

/**
 * Reads keystores in the way of openHAB and its web server: as "JKS", with one
 * password for the store and for the key. It prints a line for each:
 * its aliases, how many certificates mykey has, and of whom the first one is.
 * What cannot be used ends the program with an exception.
 *
 * <p>java ReadKeystore.java PASSWORD FILE…
 */
public class ReadKeystore {
    public static void main(String[] args) throws Exception {
        char[] password = args[0].toCharArray();
        for (int i = 1; i < args.length; i++) {
            System.out.println(describe(args[i], password));
        }
    }

    static String describe(String file, char[] password) throws Exception {
        KeyStore store = KeyStore.getInstance("JKS");
        try (InputStream in = new FileInputStream(file)) {
            store.load(in, password);
        }
        TreeSet<String> aliases = new TreeSet<>();
        for (String alias : Collections.list(store.aliases())) {
            aliases.add(alias + (store.isKeyEntry(alias) ? "/key" : "/certificate"));
        }
        PrivateKey key = (PrivateKey) store.getKey("mykey", password);
        if (key == null) {
            return aliases + " without mykey";
        }
        Certificate[] chain = store.getCertificateChain("mykey");
        for (int i = 0; i + 1 < chain.length; i++) {
            chain[i].verify(chain[i + 1].getPublicKey());
        }
        fits(key, chain[0]);
        return aliases + " chain " + chain.length + " " + ((X509Certificate) chain[0]).getSubjectX500Principal();
    }

    /** Signs with the key and verifies with the certificate, as a server and its client do. */
    static void fits(PrivateKey key, Certificate certificate) throws Exception {
        Signature signature = Signature.getInstance("SHA256with" + (key.getAlgorithm().equals("EC") ? "ECDSA" : key.getAlgorithm()));
        byte[] text = {1, 2, 3};
        signature.initSign(key);
        signature.update(text);
        byte[] signed = signature.sign();
        signature.initVerify(certificate);
        signature.update(text);
        if (!signature.verify(signed)) {
            throw new Exception("the key of mykey is not that of its certificate");
        }
    }
}
