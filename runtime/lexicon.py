"""Common words of English, Portuguese and Turkish that the other two do not share; and words of Spanish and German.

Evidence for :mod:`parrot_runtime.language_id`: function words, numbers, colours, places in a picture, and the things
pictures show. A word all three write alike is left out; one that two of them share stands in ``SHARED`` and speaks
against the third only.
"""

_ENGLISH = """
the is are was were be been being has have had and or of in it its this that these those there here with without from by
for to into near next under above below behind between beside beneath left right front back bottom middle centre center
inside outside over around across along not yes what which who where when how many much some any none nothing one two
three four five six seven eight nine eleven twelve twenty both all each every other another more less than most very
only also because but while then they them their he she his him we you your my our if does did
red green blue yellow white black brown grey gray orange purple pink dark light bright colour color coloured colored
golden silver
cat dog bird fish horse cow sheep goat pig chicken duck rabbit mouse bear lion tiger elephant monkey frog snake turtle
bee butterfly spider ant snail crab owl penguin whale shark tree flower leaf leaves grass plant sun moon star cloud rain
snow sky sea river mountain beach desert field meadow sand night fire house home room kitchen building door window wall
roof street road bridge car bus truck train plane airplane boat ship bicycle bike wheel man men woman women boy girl
child children people person baby head hand eye hair foot feet arm leg shirt shoe sock dress coat trousers glasses bag
ball book pen pencil paper table chair bed lamp clock watch phone key box bottle cup glass plate spoon fork knife bread
milk water cheese egg meat apple pear grape lemon cherry strawberry cake tea coffee fruit food umbrella kite drum bell
candle heart gift toy balloon tent anchor rocket mushroom vehicle clothing furniture
big bigger biggest small smaller smallest large larger largest little tall taller short shorter long longer wide round
square empty full old new young happy sad hot cold same different open closed shape circle triangle rectangle number
picture image background corner side object thing kind shows showing shown see seen standing sitting lying holding
wearing looking flying running playing made located placed visible there's it's isn't aren't doesn't don't
"""

_PORTUGUESE = """
os um uma uns umas é são está estão há tem têm não sim dos das na nas nos em com sem por que qual quais quem onde
quando quantos quantas quanto como mais menos muito muitos muita muitas pouco poucos este esta estes estas isso isto
esse essa aquele aquela ele ela eles elas seu sua seus suas meu minha nem ou mas porque também já ainda aqui ali lá
entre sobre sob perto dentro fora atrás frente lado ao aos à às pelo pela pelos pelas num numa neste nesta dele dela
nenhum nenhuma nada todos todas todo toda outro outra outros outras cada dois duas três quatro cinco seis sete oito
nove dez onze doze vinte ser estar ter vermelho vermelha verde azul azuis amarelo amarela branco branca preto preta
castanho castanha marrom marrons cinza cinzento cinzenta laranja roxo roxa rosa violeta dourado prateado escuro escura
claro clara cor cores colorido colorida gato gata cão cães cachorro pássaro peixe cavalo vaca ovelha cabra porco
galinha pato coelho rato urso leão tigre elefante macaco sapo tartaruga abelha borboleta aranha formiga caracol
caranguejo coruja pinguim baleia tubarão árvore flor flores folha relva grama planta lua estrela nuvem nuvens chuva
neve céu mar rio montanha praia deserto campo areia noite fogo casa sala quarto cozinha edifício prédio porta janela
parede telhado rua estrada ponte carro autocarro ônibus caminhão camião comboio trem avião barco navio bicicleta roda
homem homens mulher mulheres menino menina rapaz rapariga criança pessoa bebé bebê rosto cabeça mão mãos olho cabelo
pé braço perna chapéu camisa sapato meia meias vestido casaco calças óculos bolsa saco bola livro caneta lápis papel
mesa cadeira cama lâmpada luminária candeeiro relógio telefone celular chave caixa garrafa copo xícara chávena prato
colher garfo faca pão leite água queijo ovo carne maçã pera uva limão cereja morango bolo chá café fruta comida tambor
sino vela anel coração presente brinquedo balão tenda âncora foguete cogumelo veículo roupa móvel cacto grande grandes
maior pequeno pequena menor alto alta baixo baixa longo longa curto curta largo redondo redonda quadrado quadrada
vazio cheio velho novo nova jovem feliz triste quente frio mesmo mesma diferente aberto fechado círculo triângulo
retângulo número imagem fotografia fundo canto esquerda direita esquerdo direito centro meio acima abaixo cima objeto
objetos coisa mostra ver vê sentado sentada deitado segurando vestindo olhando voando correndo feito
"""

_TURKISH = """
bir iki üç dört beş altı yedi sekiz dokuz bu şu ve ile için var yok değil evet hayır ne hangi hangisi kim nerede nedir
kaç nasıl çok az daha tane adet hiç hiçbir hep bütün tüm diğer başka aynı gibi kadar ama çünkü mı mi mu mü onun onlar
onların biz siz benim bizim şey olan olarak oldu olduğu vardır yoktur görünüyor görülüyor bulunuyor duruyor oturuyor
içinde dışında üzerinde üstünde altında yanında arkasında önünde arasında ortasında ortada ortasındaki solda sağda sağ
solunda sağında solundaki sağındaki yukarıda aşağıda üst üstte altta ön önde arka arkada köşe köşede köşesinde orta
taraf tarafta tarafında resim resimde resmin görsel görselde fotoğraf fotoğrafta görüntü
kırmızı yeşil mavi sarı beyaz siyah kahverengi gri turuncu mor pembe lacivert koyu açık renk renkli rengi renkte
renktedir altın gümüş turkuaz
kedi köpek kuş balık inek koyun keçi domuz tavuk ördek tavşan ayı aslan kaplan fil maymun kurbağa yılan kaplumbağa arı
kelebek örümcek karınca salyangoz yengeç baykuş penguen balina ağaç çiçek yaprak çimen bitki güneş yıldız bulut yağmur
kar gökyüzü deniz nehir dağ kumsal çöl çayır kum gece ateş ev oda mutfak bina kapı pencere duvar çatı sokak yol köprü
araba otobüs kamyon tren uçak tekne gemi bisiklet tekerlek adam erkek kadın çocuk kız oğlan insan kişi bebek yüz baş göz
saç ayak kol bacak şapka gömlek ayakkabı çorap elbise ceket palto pantolon gözlük çanta kitap kalem kağıt kâğıt masa
sandalye yatak lamba saat telefon anahtar kutu şişe bardak fincan tabak kaşık çatal bıçak ekmek süt peynir yumurta elma
armut üzüm limon muz kiraz çilek kek çay kahve meyve yemek şemsiye uçurtma davul çan yüzük kalp hediye oyuncak balon
çadır çapa roket mantar araç taşıt giysi eşya mobilya kaktüs
büyük küçük uzun kısa geniş yuvarlak kare boş dolu eski yeni genç mutlu üzgün sıcak soğuk farklı kapalı şekil daire
üçgen dikdörtgen sayı nesne hayvan
"""

_SPANISH = """
el la los las lo un una unos unas uno es son está están hay ser estar tiene tienen no sí que qué cuál cuáles quién dónde
cuándo cuánto cuánta cuántos cuántas cómo y o u e pero porque también ya muy más menos mucho mucha muchos muchas poco
este esta estos estas ese esa eso esto aquí allí su sus mi se al del de en con sin por para entre sobre bajo cerca
dentro fuera detrás lado encima debajo cada otro otra otros otras todo toda todos todas nada ninguno ninguna cero dos
tres cuatro cinco seis siete ocho nueve diez
rojo roja rojos rojas naranja amarillo amarilla amarillos amarillas verde verdes azul azules morado morada morados
moradas rosa marrón marrones blanco blanca blancos blancas negro negra negros negras gris grises color colores
manzana manzanas plátano plátanos pera peras limón limones gato gatos pez peces pájaro pájaros mariposa mariposas coche
coches autobús autobuses barco barcos avión aviones taza tazas lámpara lámparas silla sillas botella botellas sombrero
sombreros camisa camisas zapato zapatos calcetín calcetines árbol árboles flor flores cactus hoja hojas pelota pelotas
cometa cometas tambor tambores globo globos perro perros fruta animal vehículo objeto objetos prenda planta juguete
pequeño pequeña pequeños pequeñas grande grandes mayor menor esquina parte superior inferior izquierda derecha izquierdo
derecho centro arriba abajo fondo imagen prado playa nieve cielo nocturno desierto habitación noche persona hombre mujer
niño niña casa mesa puerta ventana agua sol luna
"""

_GERMAN = """
der die das den dem des ein eine einen einem einer eines ist sind war hat haben gibt es und oder aber nicht kein keine
ja nein was wer wo wie viele welche welcher welches auf in im an am unter über neben von vom zu zum zur mit ohne für aus
bei nach vor hinter zwischen davon dieselbe sich befindet sehen alles mehr als auch nur sehr null eins zwei drei vier
fünf sechs sieben acht neun zehn
rot orangefarben gelb grün blau violett rosa braun weiß schwarz grau farbe apfel äpfel banane bananen birne birnen
zitrone zitronen katze katzen fisch fische vogel vögel schmetterling schmetterlinge auto autos bus busse boot boote
flugzeug flugzeuge tasse tassen lampe lampen stuhl stühle flasche flaschen hut hüte hemd hemden schuh schuhe socke
socken baum bäume blume blumen kaktus kakteen blatt blätter ball bälle drachen trommel trommeln luftballon luftballons
hund hunde frucht tier fahrzeug haushaltsgegenstand kleidungsstück pflanze spielzeug klein groß kleiner größer oben
unten links rechts mitte bild bildes hintergrund wiese strand schnee nachthimmel wüste zimmer nacht mensch mann frau
kind haus tisch tür fenster wasser sonne mond
"""
_GERMAN_ADJECTIVES = "rot orangefarben gelb grün blau violett braun weiß schwarz klein groß"
_GERMAN_ENDINGS = ("e", "er", "es", "en", "em")

WORDS: dict[str, frozenset[str]] = {
    "en": frozenset(_ENGLISH.split()),
    "pt": frozenset(_PORTUGUESE.split()),
    "tr": frozenset(_TURKISH.split()),
}

# Looked at only where an answer in one of them is asked for.
FURTHER_WORDS: dict[str, frozenset[str]] = {
    "es": frozenset(_SPANISH.split()),
    "de": frozenset(_GERMAN.casefold().split())
    | {adjective + ending for adjective in _GERMAN_ADJECTIVES.casefold().split() for ending in _GERMAN_ENDINGS},
}

_SHARED = {
    ("en", "pt"): "no as do me come face real animal banana",
    ("pt", "tr"): "de da para sol foto dar",
    ("en", "tr"): "at on her top an ten son hat can plan robot",
}
SHARED: dict[str, tuple[str, ...]] = {word: pair for pair, words in _SHARED.items() for word in words.split()}

# "no" inside a Portuguese sentence is "in the"; alone it is English.
WHOLE_ANSWERS: dict[str, str] = {"no": "en"}
