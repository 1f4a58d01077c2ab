// See README.md. What java.lang has: currentTimeMillis, nanoTime and Thread.sleep.
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;

public class Clocks {
    static void tell(String line) {
        System.out.print(line + "\n");
        System.out.flush();
    }

    static void say(String word) {
        tell(word + " " + System.currentTimeMillis() * 1000000L + " " + System.nanoTime() + " -");
    }

    static String ofAChild() throws Exception {
        String java = System.getProperty("java.home") + File.separator + "bin" + File.separator + "java";
        String[] command = {java, "-Xint", "-XX:+UseSerialGC", "-cp", System.getProperty("java.class.path"), "Clocks", "once"};
        Process made = new ProcessBuilder(command).start();
        return new BufferedReader(new InputStreamReader(made.getInputStream())).readLine();
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0) {
            say("child");
            return;
        }
        say("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null;) {
            String[] words = line.split(" ");
            if (words[0].equals("clocks")) {
                say("clocks");
            } else if (words[0].equals("wait")) {
                tell("waiting");
                Thread.sleep(Long.parseLong(words[2]));
                tell("waited");
            } else {
                tell(words[0].equals("exec") ? ofAChild() : "cannot");
            }
        }
    }
}
